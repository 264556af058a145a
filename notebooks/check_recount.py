"""Recounts a run's expert loads from the original data, without moesim's trace container.

    python notebooks/check_recount.py --npz routes_ids.npz --index index.json --run DIR

The run replayed a trace of output tokens only (no prompt rows), under the rule `missing = "wrap"`: prompt position p of a
request takes row (offset + p) mod n of its sequence, output position j row (offset + j) mod n, and a request computes
prompt + output - 1 positions, since its last token is never fed back. Prints the agreement with the run's experts.csv per
layer and overall; exit status 1 if they differ. Needs numpy only.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np


def read_csv(path):
    """The columns of a table, by name."""
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    return {name: [row[name] for row in rows] for name in rows[0]}


def row_weights(index, requests, rows):
    """How often each row of the array is computed."""
    sequences = {entry["seq"]: (entry["offset"], entry["n_tokens"]) for entry in index}
    columns = ("sequence", "offset", "prompt_tokens", "output_tokens")
    weight = np.zeros(rows, dtype=np.int64)
    for sequence, start, prompt, output in zip(*(map(int, requests[c]) for c in columns)):
        first, n = sequences[sequence]
        own = weight[first : first + n]
        for positions in (prompt, output - 1):
            rounds, rest = divmod(positions, n)
            own += rounds
            own[: max(0, start + rest - n)] += 1
            own[start : start + rest] += 1
    return weight


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npz", required=True, type=Path, help="archive with expert_ids [tokens, layers, k]")
    parser.add_argument("--index", required=True, type=Path, help="JSON list with seq, offset and n_tokens")
    parser.add_argument("--run", required=True, type=Path, help="run directory with requests.csv and experts.csv")
    args = parser.parse_args()

    ids = np.load(args.npz)["expert_ids"]
    requests = read_csv(args.run / "requests.csv")
    if any(int(n) for n in requests["recomputed_tokens"]):
        sys.exit("the run recomputed positions after preemptions, which requests.csv does not name: give it more memory")
    experts = read_csv(args.run / "experts.csv")
    found = np.array(experts["assignments"], dtype=np.int64)
    layers = np.array(experts["layer"], dtype=np.int64)

    weight = row_weights(json.loads(args.index.read_text()), requests, len(ids))
    agreement = []
    for i, layer in enumerate(np.unique(layers)):
        mine = found[layers == layer]
        counted = np.zeros(len(mine), dtype=np.int64)
        for slot in range(ids.shape[2]):
            # Integer counts, exact: np.bincount would weigh in floating point.
            np.add.at(counted, ids[:, i, slot], weight)
        same = int((counted == mine).sum())
        agreement.append(same == len(mine))
        print(f"layer {layer:3}: {same} of {len(mine)} experts agree, {counted.sum()} assignments counted, {mine.sum()} in the run")
    positions = int(weight.sum())
    print(f"{sum(agreement)} of {len(agreement)} layers agree over {len(requests['id'])} requests, {positions} positions")
    sys.exit(0 if all(agreement) and len(agreement) == ids.shape[1] else 1)


if __name__ == "__main__":
    main()
