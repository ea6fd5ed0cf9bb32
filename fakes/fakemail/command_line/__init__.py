"""The command line: how options are written, what they mean, what is done then.

parser < options < running; commands are beside them, and import what they need when they run.
Called by: ``__main__``.
"""
