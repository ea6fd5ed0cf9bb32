from fakemail.synthesis import synthesise
from fakemail.mime import header_block
class Source:
    def __init__(self,*,seed,address,folder,profile): self.a=(seed,address,folder,profile)
    flags_table=(frozenset({"\\Seen"}),frozenset())*2
    def flags_index(self,uid): return uid&3
    def flags(self,uid): return self.flags_table[uid&3]
    def raw(self,uid):
        a=self.a; return synthesise(seed=a[0],address=a[1],folder=a[2],uid=uid,profile=a[3])
    def header(self,uid): return header_block(self.raw(uid))
    def size(self,uid): return len(self.raw(uid))
    def received(self,uid): return 1700000000+uid*60
