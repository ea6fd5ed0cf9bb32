LACKS = {"fakemail": {}, "dovecot": {}, "greenmail": {}}
