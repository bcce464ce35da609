"""llama.cpp loads the GGUF files that LLMflow writes; how near its logits are to ours on the same file.

llama.cpp rounds activations to 8 bits where weights are blocks and to 16 where they are f16; ours stay f32. So two
comparisons: with our runtime on the same file (what the runtimes differ by) and on the model before quantization
(what the file cost).
"""

import numpy
from common import BLOCK_TYPES, MADE, THREADS, agreement, finish, our_logits, tell, texts, tokenizer
from llama_cpp import Llama

#: Least top-1 agreement and most KL in nats between the two runtimes on one file.
MOST = {"F16": (0.99, 1e-4), "Q8_0": (0.94, 1e-2), "Q4_0": (0.93, 2e-2)}

ids = texts()
whole = our_logits(MADE / "merged", ids)
for block_type in BLOCK_TYPES:
    file = MADE / f"{block_type}.gguf"
    model = Llama(str(file), n_ctx=256, n_batch=256, n_threads=THREADS, logits_all=True, verbose=False)
    rows = []
    for text in ids:
        model.reset()
        model.eval(text)
        rows.append(numpy.array(model.scores[: len(text)]))
    theirs = numpy.concatenate(rows)
    (same, kl), (kept, cost) = agreement(our_logits(file, ids), theirs), agreement(whole, theirs)
    least, most = MOST[block_type]
    figures = f"top-1 {same:.3f}, KL {kl:.5f}; against f32: top-1 {kept:.3f}, KL {cost:.5f}"
    tell(f"{block_type} in llama.cpp", same >= least and kl <= most, figures)
    text = "Pipelines, naïve 123 <|im_end|>\n"
    encoded = model.tokenize(text.encode(), add_bos=False, special=True)
    tell(f"{block_type} tokens in llama.cpp", encoded == tokenizer().encode(text), str(encoded))
    said = model.create_chat_completion([{"role": "user", "content": "What is the capital of France?"}], max_tokens=16, temperature=0)
    print(f"     {block_type} says {said['choices'][0]['message']['content']!r}")
finish()
