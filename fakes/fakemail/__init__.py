"""Fake IMAP and SMTP servers for tests: deterministic mail, faults as data, a ledger of all that happened."""
