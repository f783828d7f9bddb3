"""bagit.py of the Library of Congress accepts our bags; ours is stricter."""

from __future__ import annotations

import shutil

import bagit
import pytest

from bundler.errors import MalformedError
from bundler.evidence import intact_files
from bundler.storage import open_bag
from tests.conformance.harness import VALID, Bundle


def test_bagit_accepts_our_bag(tmp_path):
    shutil.copytree(VALID, tmp_path / "bag")
    bag = bagit.Bag(str(tmp_path / "bag"))
    bag.validate()
    assert bag.version_info == (1, 0)
    assert bag.algorithms == ["sha256"]
    assert bag.has_oxum()


def test_bagit_sees_what_we_see_in_a_changed_payload(tmp_path):
    bundle = Bundle(tmp_path)
    bundle.do_flip("data/code/train.py", 0)
    with pytest.raises(bagit.BagValidationError):
        bagit.Bag(str(bundle.path)).validate()


STRICTER = {
    "an extra tag file": ({"do": "write", "path": "notes.txt", "text": "x"}, "file-extra"),
    "no tag manifest": ({"do": "delete", "path": "tagmanifest-sha256.txt"}, "file-missing"),
    "a folder that is a link": (
        {"do": "symlink", "path": "data/extra", "to": "code"},
        "file-symlink",
    ),
    "an empty folder": ({"do": "folder", "path": "data/empty"}, "folder-empty"),
}


@pytest.mark.parametrize("what", STRICTER)
def test_we_refuse_what_bagit_lets_pass(what, tmp_path):
    edit, code = STRICTER[what]
    bundle = Bundle(tmp_path)
    bundle.apply([edit])
    bagit.Bag(str(bundle.path)).validate()
    with pytest.raises(MalformedError) as refused:
        intact_files(open_bag(bundle.path))
    assert refused.value.code == code
