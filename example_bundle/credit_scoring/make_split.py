"""Write data/split.csv: 600 rows to train, 200 to validate, 200 to hold out.

Stratified on the label, drawn once. The committed file is what counts: the training reads it and
never draws a split of its own.
"""

import pandas as pd
from sklearn.model_selection import train_test_split

SEED = 20240801


def main():
    label = pd.read_csv("data/german_credit.csv")["creditability"]
    rest, holdout = train_test_split(label.index, test_size=200, stratify=label, random_state=SEED)
    train, validation = train_test_split(
        rest, test_size=200, stratify=label[rest], random_state=SEED
    )
    split = pd.Series(index=label.index, name="split", dtype=object)
    split[train], split[validation], split[holdout] = "train", "validation", "holdout"
    split.to_csv("data/split.csv", index_label="row", lineterminator="\n")


if __name__ == "__main__":
    main()
