"""Read exported folders with whatever transformers is on the path; print what it found as JSON.

Run as a script: ``python read_with_transformers.py TEXT FOLDER...``.
"""

import json
import sys

import torch
import transformers


def read(folder: str, text: str) -> dict:
    """Return the logits of a text, its token ids and the end tokens of one folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits.float()
    ends = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
    return {"ids": ids, "logits": logits[0].tolist(), "ends": ends, "dtype": str(model.dtype)}


if __name__ == "__main__":
    found = [read(folder, sys.argv[1]) for folder in sys.argv[2:]]
    print(json.dumps({"version": transformers.__version__, "folders": found}))
