"""The options of the servers: how they are written on a command line (parser), and what they mean (options).

Called by: ``__main__``.
"""
