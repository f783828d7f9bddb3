"""Applies ``edits.json`` to the valid bundle. Independent of the bundler's writing code on purpose, where it can be."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

HERE = Path(__file__).parent
VALID = HERE / "valid" / "tiny"
KEYS = HERE / "keys"
ENVELOPE = "signatures/release.dsse.json"
RECORDS = "data/records.jsonl"
INDEX = "data/bundle.json"


class Bundle:
    """A copy of the valid bundle in ``root`` that edits work on; ``path`` is what is to be verified."""

    def __init__(self, root: Path) -> None:
        self.path = root / "bundle"
        shutil.copytree(VALID, self.path)

    def apply(self, edits: list[dict]) -> None:
        for edit in edits:
            arguments = {key: value for key, value in edit.items() if key != "do"}
            getattr(self, "do_" + edit["do"])(**arguments)

    def file(self, path: str) -> Path:
        return self.path if path == "." else self.path / path

    def do_write(self, path: str, text: str | None = None, base64: str | None = None) -> None:
        self.file(path).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).write_bytes(text.encode() if text is not None else decode(base64))

    def do_replace(self, path: str, old: str, new: str) -> None:
        data = self.file(path).read_bytes()
        assert old.encode() in data, (path, old)
        self.file(path).write_bytes(data.replace(old.encode(), new.encode(), 1))

    def do_flip(self, path: str, offset: int) -> None:
        data = bytearray(self.file(path).read_bytes())
        data[offset] ^= 1
        self.file(path).write_bytes(data)

    def do_cut(self, path: str, bytes: int) -> None:
        self.file(path).write_bytes(self.file(path).read_bytes()[:-bytes])

    def do_prepend(self, path: str, base64: str) -> None:
        self.file(path).write_bytes(decode(base64) + self.file(path).read_bytes())

    def do_delete(self, path: str) -> None:
        file = self.file(path)
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()

    def do_rename(self, path: str, to: str) -> None:
        self.file(to).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).rename(self.file(to))

    def do_symlink(self, path: str, to: str) -> None:
        if path == ".":
            moved = self.path.with_name("moved")
            self.path.rename(moved)
            self.path.symlink_to(moved)
            return
        if self.file(path).is_dir():
            moved = self.path.with_name("moved")
            self.file(path).rename(moved)
            self.file(path).symlink_to(moved)
            return
        self.file(path).unlink(missing_ok=True)
        self.file(path).symlink_to(to)

    def do_hardlink(self, path: str, to: str) -> None:
        os.link(self.file(to), self.path.with_name("outside"))

    def do_fifo(self, path: str) -> None:
        self.file(path).unlink(missing_ok=True)
        os.mkfifo(self.file(path))

    def do_folder(self, path: str) -> None:
        self.file(path).mkdir(parents=True)

    def do_set(self, path: str, at: str, value=None, drop: bool = False) -> None:
        document = json.loads(self.file(path).read_bytes())
        assign(document, at, value, drop)
        self.file(path).write_bytes(rfc8785.dumps(document))

    def do_record(self, line: int, at: str, value=None, drop: bool = False) -> None:
        lines = self.lines()
        document = json.loads(lines[line])
        assign(document["run"], at, value, drop)
        lines[line] = rfc8785.dumps(document)
        self.write_lines(lines)

    def do_lines(self, keep: list[int]) -> None:
        lines = self.lines()
        self.write_lines([lines[number] for number in keep])

    def do_history(self, path: str, row: str, value: str) -> None:
        rows = self.file(path).read_text().splitlines()
        numbers = [n for n, each in enumerate(rows) if each.startswith(row)]
        rows[numbers[-1]] = rows[numbers[-1]].rsplit(",", 1)[0] + "," + value
        data = ("\n".join(rows) + "\n").encode()
        self.file(path).write_bytes(data)
        lines = [json.loads(line) for line in self.lines()]
        for line in lines:
            history = line["run"]["history"]
            if history and history["path"] == path:
                history.update(sha256=sha256(data), size=len(data))
        self.write_lines([rfc8785.dumps(line) for line in lines])

    def do_chain(self) -> None:
        head, lines = "0" * 64, []
        for index, line in enumerate(self.lines()):
            document = json.loads(line)
            document.update(index=index, previous=head)
            lines.append(rfc8785.dumps(document))
            head = sha256(lines[-1])
        self.write_lines(lines)
        log = {"size": len(lines), "head": head, "root": merkle(lines)}
        self.do_set(INDEX, "/log", log)

    def do_reseal_tags(self) -> None:
        tags = {
            path: digest
            for path, digest in self.digests(".").items()
            if not path.startswith(("data/", "signatures/")) and path != "tagmanifest-sha256.txt"
        }
        self.manifest("tagmanifest-sha256.txt", tags)
        document = json.loads(self.payload())
        document["subject"][0]["digest"]["sha256"] = sha256(
            self.file("tagmanifest-sha256.txt").read_bytes()
        )
        self.do_sign(payload=document)

    def do_seal(self, statement: dict | None = None, release: bool = True) -> None:
        index = json.loads(self.file(INDEX).read_bytes())
        payload = self.digests("data")
        size = sum(self.file(path).stat().st_size for path in payload)
        self.file("bag-info.txt").write_text(
            f"Bag-Software-Agent: {index['software']}\nBagging-Date: {index['created'][:10]}\n"
            f"Payload-Oxum: {size}.{len(payload)}\n"
        )
        self.manifest("manifest-sha256.txt", payload)
        self.do_reseal_tags()
        document = json.loads(self.payload())
        if release:
            document["predicate"].update(
                log=index["log"],
                created=index["created"],
                version=index["system"]["version"],
                system=index["system"]["name"],
                previous=index["previous"],
            )
        for at, value in (statement or {}).items():
            assign(document, at, value, drop=False)
        self.do_sign(payload=document)

    def do_sign(
        self,
        payload=None,
        type: str = "application/vnd.in-toto+json",
        with_: tuple = ("key",),
        **more,
    ) -> None:
        keys = more.get("with", with_)
        data = self.payload() if payload is None else payload
        if data == "@original":
            data = decode(json.loads((VALID / ENVELOPE).read_bytes())["payload"])
        if not isinstance(data, bytes):
            data = data.encode() if isinstance(data, str) else rfc8785.dumps(data)
        pae = b"DSSEv1 %d %b %d %b" % (len(type), type.encode(), len(data), data)
        entries = []
        for name in keys:
            key = serialization.load_pem_private_key((KEYS / f"{name}.pem").read_bytes(), None)
            assert isinstance(key, ed25519.Ed25519PrivateKey)
            claimed = more.get("keyid", keyid(key)).replace("@trusted", TRUSTED)
            entries.append({"keyid": claimed, "sig": encode(key.sign(pae))})
        envelope = {"payload": encode(data), "payloadType": type, "signatures": entries}
        self.file(ENVELOPE).write_bytes(rfc8785.dumps(envelope))

    def do_tar(self) -> None:
        target = self.path.with_suffix(".tar")
        with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
            for path in sorted(self.digests(".")):
                archive.addfile(
                    member(path, self.file(path).stat().st_size), self.file(path).open("rb")
                )
        # tarfile pads to 10 KiB; the format of a bundle ends after two empty blocks.
        data = target.read_bytes()
        end = len(data.rstrip(b"\0"))
        target.write_bytes(data[: end + (-end % 512) + 1024])
        self.path = target

    def do_member(
        self, name: str, type: str = "0", mode: int = 0o644, text: str = "", **more
    ) -> None:
        info = member(name, len(text))
        info.type, info.mode, info.linkname = type.encode(), mode, more.get("linkname", "")
        data = self.path.read_bytes()[:-1024]
        body = text.encode() + b"\0" * (-len(text) % 512)
        self.path.write_bytes(data + info.tobuf(tarfile.USTAR_FORMAT) + body + b"\0" * 1024)

    def payload(self) -> bytes:
        return decode(json.loads(self.file(ENVELOPE).read_bytes())["payload"])

    def lines(self) -> list[bytes]:
        return self.file(RECORDS).read_bytes().splitlines()

    def write_lines(self, lines: list[bytes]) -> None:
        self.file(RECORDS).write_bytes(b"".join(line + b"\n" for line in lines))

    def digests(self, folder: str) -> dict[str, str]:
        files = (file for file in self.file(folder).rglob("*") if file.is_file())
        return {file.relative_to(self.path).as_posix(): sha256(file.read_bytes()) for file in files}

    def manifest(self, name: str, digests: dict[str, str]) -> None:
        self.file(name).write_text(
            "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
        )


def member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def assign(document, at: str, value, drop: bool) -> None:
    """Set or remove the place ``at`` (JSON Pointer)."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in at.split("/")[1:]]
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    key = int(last) if isinstance(document, list) and last != "-" else last
    if drop:
        del document[key]
    elif key == "-":
        document.append(value)
    else:
        document[key] = value


def merkle(leaves: list[bytes]) -> str:
    """RFC 6962, section 2.1, written as the RFC writes it."""

    def mth(part: list[bytes]) -> bytes:
        if len(part) == 1:
            return hashlib.sha256(b"\0" + part[0]).digest()
        k = 1
        while k * 2 < len(part):
            k *= 2
        return hashlib.sha256(b"\1" + mth(part[:k]) + mth(part[k:])).digest()

    return mth(leaves).hex() if leaves else hashlib.sha256().hexdigest()


def keyid(key: ed25519.Ed25519PrivateKey) -> str:
    return sha256(
        key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode(text: str | None) -> bytes:
    return base64.b64decode(text or "")


TRUSTED = keyid(serialization.load_pem_private_key((KEYS / "key.pem").read_bytes(), None))  # type: ignore[arg-type]
