"""The buffer that rows of a GPU go through, and the copy itself where there is one."""

import pytest
import torch
from torch import nn

from amnesiac.capture.copies import PinnedCopies
from amnesiac.capture.recorder import Recorder
from amnesiac.capture.spool import Spool

TENSORS = [torch.arange(12.0).view(3, 4), torch.arange(5, dtype=torch.uint8), torch.zeros(0, 4), torch.ones(7, 9)]


@pytest.mark.parametrize("values", TENSORS, ids=lambda t: str(tuple(t.shape)))
def test_there_is_room_of_the_same_form(values):
    place = PinnedCopies(pinned=False).place(values)
    assert (place.shape, place.dtype) == (values.shape, values.dtype)
    assert place.is_contiguous()


def test_the_buffer_is_used_again_and_grows():
    copies = PinnedCopies(pinned=False)
    large = copies.place(torch.ones(100))
    small = copies.place(torch.ones(10))
    assert small.data_ptr() == large.data_ptr()
    large.fill_(1.0)
    small.fill_(2.0)
    assert large.tolist() == [2.0] * 10 + [1.0] * 90  # what came before is valid until the next call only
    assert copies.place(torch.ones(101)).nbytes == 404


def test_the_hosts_tensors_are_not_copied():
    values = torch.ones(3, 4)
    assert PinnedCopies().to_host(values).data_ptr() == values.data_ptr()
    assert PinnedCopies().to_host(values.T).tolist() == values.T.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_from_a_gpu_are_whole_and_rows_those_of_the_cpu(tmp_path):
    copies = PinnedCopies()
    for k in range(20):  # of a tensor that is still being computed when the copy is asked for
        values = torch.full((1000, 1000), float(k), device="cuda").cumsum(0)
        assert torch.equal(copies.to_host(values), values.cpu())
    stored = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        recorder = Recorder(model, optimizer, Spool(tmp_path / device))
        for _ in range(3):
            with recorder.batch(range(4)):
                model(torch.arange(64.0, device=device).view(4, 16) / 64).square().sum().backward()
            optimizer.step()
        recorder.close()
        raw = (tmp_path / device / "visits.bin").read_bytes()
        stored[device] = torch.frombuffer(bytearray(raw), dtype=torch.float32)
    torch.testing.assert_close(stored["cuda"], stored["cpu"], rtol=1e-3, atol=1e-5)
