# Kept as it was run, so neither linted nor formatted.
# ruff: noqa: PGH004
# ruff: noqa
# fmt: off
"""Tiny Llama (GQA, SwiGLU, RMSNorm, interleaved RoPE = llama.cpp 'llama' arch without q/k permutation). 1 CPU thread."""
import sys,time,json,math,random,os
import sentencepiece as spm, torch, torch.nn as nn, torch.nn.functional as F, numpy as np
torch.set_num_threads(int(os.environ.get('NT','1'))); torch.manual_seed(0); random.seed(0)
BUD=float(sys.argv[1]) if len(sys.argv)>1 else 480
V=2048; CTX=256
if not os.path.exists('tok.model'):
    qa=json.load(open('corpus_qa.json'))
    open('spm_in.txt','w').write(open('corpus_docs.txt').read()+'\n'.join(a+'\n'+b for a,b in qa[:4000]))
    t=time.time()
    spm.SentencePieceTrainer.train(input='spm_in.txt',model_prefix='tok',vocab_size=V,model_type='bpe',byte_fallback=True,character_coverage=0.9995,
      unk_id=0,bos_id=1,eos_id=2,pad_id=-1,control_symbols=['<|system|>','<|user|>','<|assistant|>','<|end|>'],add_dummy_prefix=False,
      remove_extra_whitespaces=False,normalization_rule_name='identity',max_sentence_length=20000,num_threads=1,allow_whitespace_only_pieces=True,split_digits=True,
      user_defined_symbols=['\n'])
    print('tok',time.time()-t)
sp=spm.SentencePieceProcessor(model_file='tok.model')
U,A,E,S=[sp.piece_to_id(x) for x in ('<|user|>','<|assistant|>','<|end|>','<|system|>')]
qa=json.load(open('corpus_qa.json'))
ids=[]; 
items=[('qa',q,a) for q,a in qa]*2+[('doc',d,None) for d in open('corpus_docs.txt').read().split('\n\n\n')]
random.shuffle(items)
for k,q,a in items:
    if k=='qa': ids+= [1,U]+sp.encode(q)+[E,A]+sp.encode(a)+[E]
    else: ids+= [1]+sp.encode(q)
data=torch.tensor(np.array(ids,dtype=np.int32)).long(); print('tokens',len(data),'chars/token',1780445*2/len(data))
C=dict(d=192,L=5,H=6,KV=2,ff=512,V=V,ctx=CTX,eps=1e-5,theta=10000.0)
hd=C['d']//C['H']
class RMS(nn.Module):
    def __init__(s,d): super().__init__(); s.weight=nn.Parameter(torch.ones(d))
    def forward(s,x): return F.rms_norm(x,(x.shape[-1],),s.weight,C['eps'])
def rope(x,cos,sin):
    a,b=x[...,0::2],x[...,1::2]
    return torch.stack([a*cos-b*sin,a*sin+b*cos],-1).flatten(-2)
class Blk(nn.Module):
    def __init__(s):
        super().__init__(); d=C['d']
        s.an=RMS(d); s.fn=RMS(d)
        s.q=nn.Linear(d,d,bias=False); s.k=nn.Linear(d,C['KV']*hd,bias=False); s.v=nn.Linear(d,C['KV']*hd,bias=False); s.o=nn.Linear(d,d,bias=False)
        s.g=nn.Linear(d,C['ff'],bias=False); s.u=nn.Linear(d,C['ff'],bias=False); s.dn=nn.Linear(C['ff'],d,bias=False)
    def forward(s,x,cos,sin):
        B,T,_=x.shape; h=s.an(x)
        q=rope(s.q(h).view(B,T,C['H'],hd).transpose(1,2),cos,sin); k=rope(s.k(h).view(B,T,C['KV'],hd).transpose(1,2),cos,sin); v=s.v(h).view(B,T,C['KV'],hd).transpose(1,2)
        r=C['H']//C['KV']
        y=F.scaled_dot_product_attention(q,k.repeat_interleave(r,1),v.repeat_interleave(r,1),is_causal=True)
        x=x+s.o(y.transpose(1,2).reshape(B,T,-1)); h=s.fn(x)
        return x+s.dn(F.silu(s.g(h))*s.u(h))
class LM(nn.Module):
    def __init__(s):
        super().__init__(); s.e=nn.Embedding(V,C['d']); s.b=nn.ModuleList(Blk() for _ in range(C['L'])); s.n=RMS(C['d'])
        for p in s.parameters():
            if p.dim()>1: nn.init.normal_(p,0,0.02)
        for b in s.b: nn.init.normal_(b.o.weight,0,0.02/math.sqrt(2*C['L'])); nn.init.normal_(b.dn.weight,0,0.02/math.sqrt(2*C['L']))
        inv=1/(C['theta']**(torch.arange(0,hd,2).float()/hd)); f=torch.outer(torch.arange(2048).float(),inv); s.c,s.s=f.cos(),f.sin()
    def forward(s,i):
        T=i.shape[1]; x=s.e(i); c,si=s.c[:T],s.s[:T]
        for b in s.b: x=b(x,c,si)
        return F.linear(s.n(x),s.e.weight)
m=LM(); mc=torch.compile(m) if os.environ.get('COMPILE') else m; print('params',sum(p.numel() for p in m.parameters()))
torch.save({'cfg':C,'sd':m.state_dict()},'tiny_random.pt')
opt=torch.optim.AdamW(m.parameters(),lr=2e-3,betas=(0.9,0.95),weight_decay=0.05)
B=int(os.environ.get('B','12')); t0=time.time(); step=0; ema=None
while True:
    el=time.time()-t0
    if el>BUD: break
    lr=2e-3*min(1,(step+1)/60)*max(0.03,0.5*(1+math.cos(math.pi*min(1,el/BUD))))
    for g in opt.param_groups: g['lr']=lr
    ix=torch.randint(0,len(data)-CTX-1,(B,)); x=torch.stack([data[i:i+CTX] for i in ix]); y=torch.stack([data[i+1:i+CTX+1] for i in ix])
    with torch.autocast('cpu',dtype=torch.bfloat16): lg=mc(x)
    loss=F.cross_entropy(lg.float().view(-1,V),y.view(-1))
    opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(m.parameters(),1.0); opt.step()
    ema=loss.item() if ema is None else .98*ema+.02*loss.item(); step+=1
    if step%50==0: print(step,round(el),'loss',round(ema,3),'tok/s',round(step*B*CTX/max(el,1e-3)),flush=True)
torch.save({'cfg':C,'sd':m.state_dict()},'tiny_trained.pt'); print('done',step,ema)
