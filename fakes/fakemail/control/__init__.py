"""HTTP control of the fakes: users, mail, faults, the ledger, connections, reset. Never for a network.

shared < requests < mail < timelines faults ledger server < application; shared and loading do without aiohttp.
Called by: serving (shared, loading, application).
"""
