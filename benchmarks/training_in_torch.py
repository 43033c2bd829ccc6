"""The contestant of `training_loop.py` that runs in PyTorch, eagerly; by a Python that has torch, and no mltool.

Written as for speed: samples lie in one tensor, a batch is one indexing, and nothing waits for a number before the end
of an epoch. Layers and optimizer get what Keras' have: sizes, Glorot's uniform weights, biases of 0, Adam's constants.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import own_stdout, take_turns


def main() -> None:
    """Arguments: the model, the folder with x.npy and y.npy, the batch size, the learning rate, threads."""
    answers = own_stdout()
    import numpy as np
    import torch

    name, folder, batch_size, learning_rate, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    samples = torch.from_numpy(np.load(Path(folder) / "x.npy"))
    if name == "cnn":
        samples = samples.permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(np.load(Path(folder) / "y.npy"))
    epoch = epochs(name, samples, targets, batch_size=int(batch_size), learning_rate=float(learning_rate))
    take_turns({"torch": torch.__version__}, epoch, answers)


def epochs(name: str, samples: Any, targets: Any, *, batch_size: int, learning_rate: float) -> Callable[[], float]:
    """A function that runs one epoch, and gives its mean loss."""
    import torch
    from torch import nn

    class LastOfLSTM(nn.Module):  # type: ignore[misc]
        """A recurrent layer that gives its last output."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 32, batch_first=True)

        def forward(self, values: Any) -> Any:
            return self.lstm(values)[0][:, -1]

    layers: dict[str, Callable[[], list[Any]]] = {
        "small mlp": lambda: [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)],
        "mlp": lambda: [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)],
        "cnn": lambda: [
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10),
        ],
        "lstm": lambda: [LastOfLSTM(), nn.Linear(32, 10)],
    }  # fmt: skip
    model = nn.Sequential(*layers[name]())
    for weights in model.parameters():
        if weights.dim() > 1:
            nn.init.xavier_uniform_(weights)
        else:
            nn.init.zeros_(weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, eps=1e-7)
    loss_of = nn.CrossEntropyLoss()

    def epoch() -> float:
        total, right = torch.zeros(()), torch.zeros(())
        for rows in torch.randperm(len(samples)).split(batch_size):
            batch, wanted = samples[rows], targets[rows]
            optimizer.zero_grad()
            outputs = model(batch)
            loss = loss_of(outputs, wanted)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                total += loss.detach() * len(rows)
                right += (outputs.argmax(1) == wanted).sum()
        return float(total / len(samples))

    return epoch


if __name__ == "__main__":
    main()
