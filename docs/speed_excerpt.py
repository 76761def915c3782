"""The tables of the README and of the page on speed, from ``speed_table.txt``.

``python docs/speed_excerpt.py`` prints that of the README.
"""

from __future__ import annotations

from pathlib import Path

TABLE = Path(__file__).with_name("speed_table.txt")
ROWS = {
    "MLP 784-32-10, train, batch 1": "MLP 784-32-10, batch 1",
    "MLP 784-32-10, train, batch 32": "MLP 784-32-10, batch 32",
    "MLP 784-128-10, train, batch 32": "MLP 784-128-10, batch 32",
    "MLP 784-128-10, train with Adam, batch 32": "the same with Adam",
    "MLP 784-256-128-10, train, batch 128": "MLP 784-256-128-10, batch 128",
    "MLP 784-1024-1024-10, train, batch 512": "MLP 784-1024-1024-10, batch 512",
    "RNN 28x28-128-10, train, batch 64": "RNN of 28 steps, hidden 128, batch 64",
    "LSTM 28x28-128-10, train, batch 64": "LSTM of the same size",
    "LeNet, train, batch 64": "LeNet, batch 64",
    "PyTorch example CNN, train, batch 64": "PyTorch's example CNN, batch 64",
    "CNN of depthwise convolutions, train, batch 64": "CNN of depthwise convolutions, batch 64",
    "Transformer layer 28x128, train, batch 64": "Transformer layer, 28 steps of 128, batch 64",
    "MLP 784-128-10, predict, batch 1": "MLP 784-128-10, `predict` of one sample",
    "MLP 784-256-128-10, predict, batch 256": "MLP 784-256-128-10, `predict` of 256 samples",
    "LSTM 28x28-128-10, predict, batch 1": "the LSTM, `predict` of one sample",
    "import, whole process": "`import`, as a whole process",
    "first MNIST epoch, whole process, with tensors": "first epoch of MNIST, as a whole process",
}


def cells() -> list[list[str]]:
    """Return the rows of the benchmark's table; the first is the header."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def whole() -> str:
    """Return all rows in Markdown, with the processor and the versions below."""
    header, _, *rows = cells()
    titles = ["speed-up" if title == "ratio" else title for title in header]
    titles[header.index("floor") + 1] = "floor / nnlite"
    titles[header.index("compiled floor") + 1] = "floor / compiled"
    columns = [column for column, title in enumerate(header) if title != "goal"]
    shown = [titles[column] for column in columns]
    table = [shown, ["---", *["---:"] * (len(shown) - 1)]]
    table += [
        [row[column] for column in columns] for row in rows if row[header.index("PyTorch")] != "–"
    ]
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line.startswith(("nnlite:", "PyTorch:", "BLAS:"))]
    text = [" | ".join(["", *row, ""]).strip() for row in table]
    return "\n".join([*text, "", f"{lines[0]}. {' '.join(versions)}"])


def excerpt() -> str:
    """Return the table in Markdown; where PyTorch is faster, the speed-up is in italics."""
    header, *rows = cells()
    compiled = header.index("nnlite compiled")
    # Each side's ratio comes behind it, and the floor has one too.
    columns = [*map(header.index, ("case", "PyTorch", "nnlite", "ratio")), compiled, compiled + 1]
    measured = {}
    for row in rows:
        name, torch, own, speed_up, native, native_speed_up = (row[column] for column in columns)
        times = [time.partition(" ±")[0] for time in (torch, own, native)]
        ratios = [_marked(speed_up), _marked(native_speed_up)]
        measured[name] = f"| {times[0]} | {times[1]} | {ratios[0]} | {times[2]} | {ratios[1]} |"
    table = [
        "| training step, or as stated | PyTorch | nnlite | speed-up | compiled | speed-up |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    return "\n".join([*table, *(f"| {title} {measured[case]}" for case, title in ROWS.items())])


def _marked(speed_up: str) -> str:
    is_slower = speed_up.replace(".", "").isdigit() and float(speed_up) < 1
    return f"*{speed_up}*" if is_slower else speed_up


if __name__ == "__main__":
    print(excerpt())
