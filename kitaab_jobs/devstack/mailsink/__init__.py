"""Where the e-mails of the embedded stack end: an SMTP server that keeps the last ones, and pages that show them.

Both listen on loopback only. The pages also stand in for the app's own where an e-mail links to it: the link that
unsubscribes asks once, and then does it.
"""
