# Kept as it was run, so neither linted nor formatted.
# ruff: noqa: PGH004
# ruff: noqa
# fmt: off
"""Corpus for a tiny assistant: only text already on the machine (Python's own docs and docstrings)."""
import importlib, inspect, pkgutil, random, re, sys, warnings, json
warnings.simplefilter("ignore")
random.seed(0)
from pydoc_data import topics
docs=[]; qa=[]
def clean(t):
    t=re.sub(r'[ \t]+\n','\n',t); t=re.sub(r'\n{3,}','\n\n',t)
    t=re.sub(r'\*{2,}$','',t,flags=re.M)
    return t.strip()
for k,v in topics.topics.items():
    t=clean(v); docs.append(t)
    paras=[p for p in t.split('\n\n') if len(p)>80][:2]
    if paras: qa.append((f"What is {k} in Python?", '\n\n'.join(paras)[:700]))
mods="abc argparse array ast asyncio base64 bisect builtins bz2 calendar cmath codecs collections colorsys concurrent.futures configparser contextlib copy csv ctypes dataclasses datetime decimal difflib dis email enum fileinput fnmatch fractions ftplib functools gc getpass gettext glob gzip hashlib heapq hmac html http.client http.server imaplib importlib inspect io ipaddress itertools json keyword linecache locale logging lzma mailbox math mimetypes multiprocessing numbers operator os os.path pathlib pickle pickletools platform pprint profile queue random re sched secrets select selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable sys sysconfig tarfile tempfile textwrap threading time timeit tkinter token tokenize trace traceback tracemalloc turtle types typing unittest unittest.mock urllib.parse urllib.request uuid venv warnings wave weakref webbrowser xml.etree.ElementTree xmlrpc.client zipfile zlib".split()
seen=set()
def add(q,obj):
    d=inspect.getdoc(obj)
    if not d or len(d)<40 or d in seen: return
    seen.add(d); d=clean(d); docs.append(f"{q}\n\n{d}")
    first=d[:500]
    if len(d)>500: first=first.rsplit('\n',1)[0]
    for f in random.sample(["What does {} do?","Explain {}.","How do I use {}?","Tell me about {}."],2):
        qa.append((f.format(q),first))
for m in mods:
    try: mod=importlib.import_module(m)
    except Exception: continue
    add(m,mod)
    for n,o in sorted(vars(mod).items()):
        if n.startswith('_'): continue
        if inspect.ismodule(o): continue
        add(f"{m}.{n}",o)
        if inspect.isclass(o):
            for n2,o2 in sorted(vars(o).items()):
                if n2.startswith('_'): continue
                try: add(f"{m}.{n}.{n2}",getattr(o,n2))
                except Exception: pass
chit=[("Hello","Hello! I am a tiny assistant trained on the Python documentation. Ask me about a Python module or function."),
("Hi","Hello! Ask me about a Python module or function."),
("Who are you?","I am a tiny language model trained on this machine from the Python documentation."),
("What can you do?","I can answer short questions about Python modules and functions. I am very small, so please check what I say."),
("Thank you","You are welcome.")]
qa+=chit*40
random.shuffle(qa); random.shuffle(docs)
open('corpus_docs.txt','w').write('\n\n'.join(docs))
json.dump(qa,open('corpus_qa.json','w'))
print('docs chars',sum(map(len,docs)),'n',len(docs),'qa',len(qa),'qa chars',sum(len(a)+len(b) for a,b in qa))
