"""Breaks its own CUDA context the first time it is started, as a bug in a kernel does, and asks to be started again."""

import pathlib
import sys

import torch

flag, out = map(pathlib.Path, sys.argv[1:])
if not flag.exists():
    flag.touch()
    try:
        torch.zeros(4, device="cuda")[torch.tensor([9], device="cuda")] += 1  # a device-side assertion
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        sys.exit(75)
    sys.exit("nothing broke")
(out / "sum.txt").write_text(str(torch.ones(8, device="cuda").sum().item()))
