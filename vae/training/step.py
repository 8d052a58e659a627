"""A training step as one CUDA graph: the processor launches it once, instead of its thousands of kernels one by one.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from vae.training.failures import first_line

WARM_UP = 3  # steps before the capture, in which libraries choose their algorithms, and a model is compiled


class GraphedStep:
    """Call a function of a batch, on one CUDA device, and from the fourth batch of a shape on replay what it did.

    step: takes a tensor and returns one, without a gradient; all else that it reads and writes are tensors that stay where
        they are. It never waits for the device. Random numbers are those of the device's own generator, and each replay
        draws the next ones, as a call would.
    is_required: raise ValueError if the step can't be captured, instead of calling it every time.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], *, is_required: bool = False) -> None:
        self.step, self.is_required = step, is_required
        self.warm_up = WARM_UP
        self.graph: torch.cuda.CUDAGraph | None = None
        self.can_capture = True
        self.x = self.result = torch.empty(0)  # what the graph reads and writes

    def __call__(self, x: Tensor) -> Tensor:
        if self.warm_up:
            self.warm_up -= 1
            return self._call_aside(x)
        if self.can_capture and not self.graph:
            self._capture(x)
        if not self.graph or x.shape != self.x.shape:
            return self.step(x)
        self.x.copy_(x)
        self.graph.replay()
        return self.result.clone()  # the next replay writes there again

    def _call_aside(self, x: Tensor) -> Tensor:
        """Call the step on another stream than the default one, as whatever is to be captured later must be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self.step(x)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _capture(self, x: Tensor) -> None:
        """Capture the step, without taking it."""
        self.x = x.clone()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        random = generator.clone_state()
        try:
            # Other threads may use the device meanwhile: they load pictures.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.result = self.step(self.x)
        except RuntimeError as error:
            # A capture that fails leaves its stream behind, and a generator that waits for its end.
            torch.cuda.set_stream(stream)
            generator.graphsafe_set_state(random)
            self.can_capture = False
            reason = f"the training step can't be captured as a CUDA graph ({first_line(error)})"
            if self.is_required:
                raise ValueError(f"{reason}: leave out --cuda-graph on") from error
            tqdm.write(f"{reason}: its kernels are launched one by one, which is slower")
        else:
            self.graph = graph
