"""peft loads our adapter, and merges it to what we merge it to."""

import numpy
from common import MADE, finish, open_in_transformers, our_logits, tell, texts, torch_logits
from peft import PeftModel

ids = texts()
base = open_in_transformers(MADE / "base")
plain = torch_logits(base, ids)
adapted = PeftModel.from_pretrained(base, MADE / "adapter")
beside = torch_logits(adapted, ids)
merged = torch_logits(adapted.merge_and_unload(), ids)
own = our_logits(MADE / "merged", ids)

changed = numpy.abs(plain - own).max()
tell("the adapter changes the model", changed > 0.1, f"largest change of a logit {changed:.2f}")
for name, theirs in [("beside the base", beside), ("merged by peft", merged)]:
    difference = numpy.abs(theirs - own).max()
    tell(f"adapter {name} against our merged folder", difference < 1e-3, f"largest difference {difference:.2e}")
finish()
