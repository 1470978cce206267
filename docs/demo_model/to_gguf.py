# Kept as it was run, so neither linted nor formatted.
# ruff: noqa: PGH004
# ruff: noqa
# fmt: off
"""checkpoint (of train.py) -> GGUF.  usage: to_gguf.py ckpt.pt out.gguf [f16|q8_0] [name]"""
import sys,torch,numpy as np,gguf,sentencepiece as spm
ck,out,ft,name=sys.argv[1],sys.argv[2],sys.argv[3],sys.argv[4]
d=torch.load(ck); C=d['cfg']; sd={k.replace('_orig_mod.',''):v.float().numpy() for k,v in d['sd'].items()}
sp=spm.SentencePieceProcessor(model_file='tok.model')
w=gguf.GGUFWriter(out,'llama')
w.add_name(name); w.add_context_length(2048 if len(sys.argv)<6 else int(sys.argv[5])); w.add_embedding_length(C['d']); w.add_block_count(C['L']); w.add_feed_forward_length(C['ff'])
w.add_head_count(C['H']); w.add_head_count_kv(C['KV']); w.add_layer_norm_rms_eps(C['eps']); w.add_rope_freq_base(C['theta']); w.add_rope_dimension_count(C['d']//C['H']); w.add_vocab_size(C['V'])
w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if ft=='q8_0' else gguf.LlamaFileType.MOSTLY_F16); w.add_quantization_version(2)
T=gguf.TokenType; toks,sc,ty=[],[],[]
for i in range(sp.get_piece_size()):
    p=sp.id_to_piece(i); t=T.NORMAL
    if sp.is_unknown(i): t=T.UNKNOWN
    elif sp.is_control(i): t=T.CONTROL
    elif sp.is_byte(i): t=T.BYTE
    elif p=='\n': t=T.USER_DEFINED
    toks.append(p.encode()); sc.append(sp.get_score(i)); ty.append(t)
w.add_tokenizer_model('llama'); w.add_tokenizer_pre('default'); w.add_token_list(toks); w.add_token_scores(sc); w.add_token_types(ty)
w.add_bos_token_id(1); w.add_eos_token_id(2); w.add_eot_token_id(sp.piece_to_id('<|end|>')); w.add_unk_token_id(0); w.add_add_bos_token(True); w.add_add_eos_token(False); w.add_add_space_prefix(False)
w.add_chat_template("{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
def put(n,a):
    if a.ndim==1: w.add_tensor(n,a.astype(np.float32)); return
    if ft=='q8_0': w.add_tensor(n,gguf.quants.quantize(a.astype(np.float32),gguf.GGMLQuantizationType.Q8_0),raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    else: w.add_tensor(n,a.astype(np.float16))
put('token_embd.weight',sd['e.weight']); put('output_norm.weight',sd['n.weight'])
M={'an':'attn_norm','fn':'ffn_norm','q':'attn_q','k':'attn_k','v':'attn_v','o':'attn_output','g':'ffn_gate','u':'ffn_up','dn':'ffn_down'}
for i in range(C['L']):
    for a,b in M.items(): put(f'blk.{i}.{b}.weight',sd[f'b.{i}.{a}.weight'])
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
import os; print(out,os.path.getsize(out))
