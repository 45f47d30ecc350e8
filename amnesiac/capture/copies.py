"""From an accelerator to the host, without holding up what computes there."""

import torch
from torch import Tensor


class PinnedCopies:
    """Copies through one page-locked buffer, on a stream of their own.

    `.cpu()` goes through pageable memory on the stream that training computes on: its next kernels would wait for the
    transfer. Here the calling thread alone waits, for an event behind the copy, with Python's lock released.
    """

    def __init__(self, *, pinned: bool = True) -> None:
        """pinned: page-locked memory, which needs an accelerator."""
        self._pinned = pinned
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._stream: torch.cuda.Stream | None = None

    def to_host(self, values: Tensor) -> Tensor:
        """The same numbers in the host's memory, contiguous; of a GPU's tensor valid until the next call."""
        values = values.contiguous()
        if not values.is_cuda:
            return values.cpu()
        host, event = self.place(values), torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.device(values.device):
            self._stream = self._stream or torch.cuda.Stream(values.device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                host.copy_(values, non_blocking=True)
                event.record(self._stream)
        values.record_stream(self._stream)  # its memory isn't given to others before the copy is done
        event.synchronize()
        return host

    def place(self, values: Tensor) -> Tensor:
        """Room for `values` at the buffer's beginning; the buffer grows where it is too small, and is kept."""
        if values.nbytes > self._buffer.nbytes:
            self._buffer = torch.empty(values.nbytes, dtype=torch.uint8, pin_memory=self._pinned)
        return self._buffer[: values.nbytes].view(values.dtype).view(values.shape)
