"""A sweep through the real flow: its runs, its choice, and what goes wrong."""

import uuid
import pytest
from flows import grids
from flows.sweep import sweep
from tasks import tracking

pytestmark = pytest.mark.usefixtures("prefect_server")

def test_a(prefect_server):
    import time
    for tokens in (["--training.lr","0.001,0.01,0.1","--training.seed","0..1","--training.epochs","5"],["--model.kind","linear,mlp","--training.lr","0.01,0.1","--training.epochs","5"], ["--training.epochs","5,6"]):
        t=time.time()
        g=grids.grid("iris",[*tokens,"--name",f"s{uuid.uuid4().hex[:8]}"])
        try:
            r=sweep(g.members,g.axes)
            print([m.way for m in r.members],[m.loss for m in r.members],r.chosen, r.outcome.run.id)
        except Exception as e:
            import traceback; traceback.print_exc()
        print("took",time.time()-t)
    assert 0
