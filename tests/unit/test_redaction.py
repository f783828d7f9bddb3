"""Personal data and credentials are taken out of records, and it is said where."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.capture.privacy import without_homes
from bundler.records import CodeVersion, DatasetVersion, FidelityFlag, RunRecord, Source
from bundler.redaction import (
    PERSONAL_DATA,
    clean_text,
    credential_name,
    holds_a_token,
    personal_data_in,
    redact,
    summary,
)
from bundler.spec import Redaction

EMPTY = RunRecord(
    id="r",
    name=None,
    source=Source(tracker="t", store="s", experiment_id="1", experiment="e", run_id="r"),
    status="finished",
    deleted=False,
    started_at=None,
    ended_at=None,
    code=CodeVersion(),
    data=(),
    parameters={},
    seed=None,
    environment={},
    metrics=(),
    history=None,
    artefacts=(),
    tags={},
)


def tagged(name: str, value: str, kept=()) -> tuple[str, frozenset]:
    record, found = redact(replace(EMPTY, tags={name: value}), kept)
    return record.tags[name], found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mlflow.user", "user-name"),
        ("sys/owner", "user-name"),
        ("Username", "user-name"),
        ("host", "host-name"),
        ("system.hostname", "host-name"),
        ("ip address", "host-name"),
        ("git.author_email", "e-mail"),
        ("aws.secret_access_key", "credential"),
        ("API_KEY", "credential"),
    ],
)
def test_a_value_goes_by_its_name(name, kind):
    assert tagged(name, "anna") == (f"[redacted {kind}]", {(kind, f"tags.{name}")})


@pytest.mark.parametrize(
    "name", ["max_tokens", "token", "node", "users", "n_hosts", "lr", "secretary", "user.count"]
)
def test_other_names_are_left(name):
    assert tagged(name, "12") == ("12", frozenset())


@pytest.mark.parametrize(
    ("text", "clean", "kind"),
    [
        ("by anna.b+c@lab.example.org, ok", "by [redacted e-mail], ok", "e-mail"),
        ("/home/anna/data/x.csv", "~/data/x.csv", "home-path"),
        ("file:///Users/anna/x", "file://~/x", "home-path"),
        (r"C:\Users\Anna\x", r"~\x", "home-path"),
        ("/root/x and /root", "~/x and ~", "home-path"),
        ("https://me:pw@host/x", "https://host/x", "credential"),
        ("AKIA" + "A" * 16, "[redacted credential]", "credential"),
        ("hf_" + "a" * 34, "[redacted credential]", "credential"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nAAA\n-----END RSA PRIVATE KEY----- b",
            "[redacted credential] b",
            "credential",
        ),
    ],
)
def test_a_shape_goes_wherever_it_is(text, clean, kind):
    assert tagged("note", text) == (clean, {(kind, "tags.note")})
    assert kind in personal_data_in(text)
    if kind in PERSONAL_DATA:
        assert tagged("note", text, kept=(kind,)) == (text, frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:org/repository.git",
        "/data/home/x",
        "/rooted",
        "numpy==2.0@build",
        "f1@0.5",
        "sk-learn",
        "0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_names_nobody_is_left(text):
    assert tagged("note", text) == (text, frozenset())
    assert personal_data_in(text) == ()


def test_a_credential_is_never_kept():
    assert tagged("password", "x", kept=PERSONAL_DATA)[0] == "[redacted credential]"


def test_every_text_of_a_record_is_searched():
    path = "/home/anna/p"
    record = replace(
        EMPTY,
        name=path,
        source=replace(EMPTY.source, experiment=path),
        code=CodeVersion(repository=path, branch=path, entry_point=path),
        data=(DatasetVersion(name=path, source=path, version=path),),
        parameters={"p": path, "n": 3, "user": "anna", "flag": True, "nothing": None},
        environment={"host": "anna-pc", "prefix": path},
        tags={"t": path},
        fidelity=(FidelityFlag(field="artefacts", flag="missing", detail=path),),
    )
    clean, found = redact(record)
    assert "anna" not in repr(clean)
    assert clean.parameters == {
        "p": "~/p",
        "n": 3,
        "user": "[redacted user-name]",
        "flag": True,
        "nothing": None,
    }
    assert {field for _, field in found} >= {
        *("name", "source.experiment", "code.repository", "code.branch", "code.entry_point"),
        *("data.name", "data.source", "data.version", "parameters.p", "environment.prefix"),
        *("tags.t", "fidelity", "environment.host"),
    }
    assert redact(clean) == (clean, frozenset())


def test_redactions_are_counted_by_run():
    found = [frozenset({("e-mail", "tags.x")}), frozenset({("e-mail", "tags.x")}), frozenset()]
    assert summary(found) == (Redaction(kind="e-mail", field="tags.x", runs=2),)


@given(st.text(max_size=200))
def test_any_text_comes_through(text):
    clean, _ = redact(replace(EMPTY, tags={"note": text}))
    assert redact(clean) == (clean, frozenset())


CREDENTIAL_NAMES = [
    *("aws_secret_access_key", "AWS_ACCESS_KEY_ID", "openai_api_key", "OPENAI_APIKEY", "apiKey"),
    *("openaiApiKey", "db_password", "DBPassword", "PGPASSWORD", "mlflow_tracking_password"),
    *("client_secret", "clientSecret", "hf_token", "HF_TOKEN", "wandb-api-key", "x/y|git:gh_token"),
    *("headers.authorization", "api_keys.0", "password2", "AccountKey", "env.CONNECTION_STRING"),
]
OTHER_NAMES = [
    *("max_tokens", "eos_token", "pad_token", "cls_token", "token", "num_tokens", "secret_ratio"),
    *("key", "keyword", "secretary", "sort_key", "monkey", "token_id", "use_password", "n_secrets"),
    *("password_file", "", "0", "."),
]


@pytest.mark.parametrize("name", CREDENTIAL_NAMES)
def test_a_credential_is_known_by_the_last_words_of_its_name(name):
    assert credential_name(name)
    assert tagged(name, "hunter2")[0] == "[redacted credential]"


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_hyperparameters_are_no_credentials(name):
    assert not credential_name(name)
    assert tagged(name, "<pad>") == ("<pad>", frozenset())


C = "[redacted credential]"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl"
SECRETS = {
    "train.py --password hunter2 --lr 0.1": f"train.py --password {C} --lr 0.1",
    "train.py --api-key=hunter2 --lr 0.1": f"train.py --api-key={C} --lr 0.1",
    "password=hunter2": f"password={C}",
    "env: DB_PASSWORD=hunter2,lr=0.1": f"env: DB_PASSWORD={C},lr=0.1",
    "password: 'correct horse' x": f"password: '{C}' x",
    "C(lr=0.1, password=hunter2)": f"C(lr=0.1, password={C})",
    '["--password", "hunter2", "--lr", "0.1"]': f'["--password", "{C}", "--lr", "0.1"]',
    '{"api_key":"hunter2","lr":0.1}': f'{{"api_key":"{C}","lr":0.1}}',
    r'"{\"api_key\": \"hunter2\"}"': rf'"{{\"api_key\": \"{C}\"}}"',
    "Server=db;Password=hunter2;Database=x": f"Server=db;Password={C};Database=x",
    "https://h/x?a=1&sig=hunter2%3D&b=2": f"https://h/x?a=1&sig={C}&b=2",
    "https://h/x?X-Amz-Signature=hunter2": f"https://h/x?X-Amz-Signature={C}",
    "https://h/x?X-Amz-Credential=hunter2%2F1&y": f"https://h/x?X-Amz-Credential={C}&y",
    "https://h/x#access_token=hunter2&y": f"https://h/x#access_token={C}&y",
    "curl -H 'Authorization: Bearer hunter2'": f"curl -H 'Authorization: {C}'",
    "with Bearer hunter2abc now": f"with Bearer {C} now",
    "github_pat_" + "a1B2" * 10: C,
    "ASIA" + "B" * 16: C,
    "x " + JWT + " y": f"x {C} y",
    "sk-proj-" + "aB3-" * 10: C,
    "https://hunter2@dev.azure.com/org": "https://dev.azure.com/org",
    "https://anna:hun@ter2:w0rd@host": "https://host",
    "https://anna:hun?t#er2@host/a@b": "https://host/a@b",
    "ssh://anna@host/x": "ssh://host/x",
}


@pytest.mark.parametrize("text", SECRETS)
def test_a_credential_in_a_text_goes(text):
    assert clean_text(text, PERSONAL_DATA) == SECRETS[text]
    assert clean_text(SECRETS[text], ()) == SECRETS[text]
    assert personal_data_in(text) == ("credential",)


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://git@host/x", "git@host:x", "git@gitlab.bank.com:ml/credit.git"),
        *("abfss://raw@lake.dfs.core.windows.net/x", "docker://image@sha256:00ff"),
        "sk-learn-pipeline-with-a-very-long-descriptive-name-v2",
        *("recall@k.macro", "f1@0.5", "precision@10", "numpy==2.0@build", "model@v1.pt", "x@y.gz"),
        *("/data/x", "/homes/x", "/opt/home-assistant", "/opt/home/x", "/data//home/x", "/home"),
        *("https://example.org/home/page", "/var/www/home/page", r"\root \users"),
        *("--use-password train.py", "--password --lr 0.1", "password=None", "password", "secret="),
        *('{"password": 2078}', "eos_token=x", "--max-tokens 7", "?key=short", "bearer of news"),
        *("password: [", 'password: ""'),
    ],
)
def test_evidence_that_looks_similar_is_left(text):
    assert clean_text(text, ()) == text
    assert personal_data_in(text) == ()


MAIL = "[redacted e-mail]"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("anna.meier@bank.de:hello", f"{MAIL}:hello"),
        ("anna@gitlab.bank.com:ml/x.git", f"{MAIL}:ml/x.git"),
        ("anna@münchen.de", MAIL),
        ("?mail=anna%40bank.de&x", f"?mail={MAIL}&x"),
        ("anna@bank.de.Then", f"{MAIL}.Then"),
        ("anna@почта.рф", MAIL),
        ("anna@host.xn--p1ai", MAIL),
        ("anna@laptop.local", MAIL),
        ("anna@uni.pt", MAIL),
        ("//anna@bank.de", f"//{MAIL}"),
        ("x" * 100 + "@bank.de", MAIL),
    ],
)
def test_addresses_of_people_go(text, clean):
    assert clean_text(text, ()) == clean
    assert clean_text(text, ("e-mail",)) == text


HOMES = {
    "/home/anna/x": "~/x",
    "/mnt/home/anna": "~",
    "/export/home/anna/x": "~/x",
    "/gpfs/home/anna/x": "~/x",
    "/mnt/nfs/home/anna/x": "~/x",
    "/var/home/anna/x": "~/x",
    "/mnt/c/Users/anna/x": "~/x",
    "/c/users/anna/x": "~/x",
    r"c:\users\anna\x": r"~\x",
    "C:/Users/anna/x": "~/x",
    "file:///C:/Users/anna/x": "file://~/x",
    "file:///home/anna/x": "file://~/x",
    "//server/home/anna/x": "~/x",
    r"\\server\c$\Users\anna\x": r"~\x",
    r"C:\\Users\\anna\\x": r"~\\x",
    "path=%2Fhome%2Fanna%2Fx": "path=~%2Fx",
    "file%3A%2F%2F%2Fhome%2Fanna": "file%3A~",
    r"C:\Users\anna trained with lr 0.1": "~ trained with lr 0.1",
    r"C:\Users\Anna Meier\x": r"~\x",
    "/Users/anna@bank.de/exp": "~/exp",
    "gcc -I/home/anna/include": "gcc -I~/include",
    r"a\n/home/anna/x": r"a\n~/x",
    "/usr/bin:/home/anna/bin": "/usr/bin:~/bin",
    "(/home/anna)": "(~)",
    "sftp://server/home/anna/x": "sftp://server/~/x",
    "host:/home/anna/x": "host:~/x",
    "/var/root/x": "~/x",
    "/root": "~",
    "/data/x": "/data/x",
    "/data/home/x": "/data/home/x",
    "/homes/x": "/homes/x",
    "/opt/home-assistant": "/opt/home-assistant",
}


@pytest.mark.parametrize("text", HOMES)
def test_home_folders_go_with_all_before_the_name_here_and_where_they_are_recorded(text):
    assert clean_text(text, ()) == without_homes(text) == HOMES[text]
    assert without_homes(HOMES[text]) == HOMES[text]
    if text != HOMES[text]:
        assert personal_data_in(text) == ("home-path",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("embedding_dim.user", "64"),
            ("opt.owner", "0.1"),
            ("user", "[64, 32]"),
            ("ip", "-1e-3"),
        ),
        *(("user", "nan"), ("owner", "True"), ("password", "None"), ("secret", "0.1")),
    ],
)
def test_numbers_and_switches_stay_whatever_their_name(name, value):
    assert tagged(name, value) == (value, frozenset())


def test_what_a_key_says_goes_for_texts_alone():
    values = {"user": 64, "host": 0.5, "password": True, "owner": None, "mlflow.user": "anna"}
    clean = redact(replace(EMPTY, parameters=values))[0].parameters
    assert clean == {**values, "mlflow.user": "[redacted user-name]"}
    assert tagged("ip", "10.0.0.1")[0] == "[redacted host-name]"
    assert tagged("db_password", "12345678")[0] == C


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "a",
            "@",
            "a@",
            "a.",
            "a@b.",
            "a@a.a.",
            "/",
            "//",
            "\\",
            "://",
            "://a:",
            "://a@",
            "%2F",
            "%40",
        ),
        *(
            "/home/",
            "/home/a",
            "/mnt/a/",
            "C:\\Users\\a ",
            "//a/home",
            "sftp://a",
            "sk-",
            "sk-aB3",
            "hf_",
        ),
        *(
            "eyJ",
            "eyJaaaaaa.",
            "Bearer ",
            "Bearer aaaaaaaa",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
        ),
        *(
            "password=",
            "password='",
            "--password ",
            'password: \\"',
            "a=",
            "a,",
            "password=a,",
            "?sig=",
        ),
        *(
            "X-Amz-Signature=",
            " ",
            "'",
            '"',
            ",",
            "\\",
            "\n",
            "-",
            "é",
            "AKIA",
            "ghp_a",
            "api_",
            "A",
        ),
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(piece):
    text = piece * (200_000 // len(piece))
    assert clean_text(clean_text(text, ()), ()) == clean_text(text, ())


PIECES = [
    *(
        "anna",
        "@",
        ".de",
        ":",
        "/",
        "//",
        "\\",
        "home",
        "/home/",
        "Users",
        "C:",
        "%2F",
        "%40",
        "git",
        " ",
        "=",
    ),
    *(
        "password",
        "--api-key",
        "[redacted credential]",
        "'",
        '"',
        "Bearer ",
        "sig",
        "?",
        "&",
        ",",
        "~",
        "1",
    ),
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_cleaning_twice_changes_nothing_more(text):
    clean = clean_text(text, ())
    assert clean_text(clean, ()) == clean
    assert personal_data_in(clean) == ()


def test_code_that_asks_for_a_password_holds_none():
    assert not holds_a_token("password = getpass()\napi_key = os.environ['API_KEY']\n")
    assert holds_a_token("key = 'AKIA" + "A" * 16 + "'")
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw" * 3
    assert holds_a_token(key)


@pytest.mark.parametrize(
    "text",
    [
        'return "-----BEGIN PRIVATE KEY-----" in text',
        'KEY = "AKIAIOSFODNN7EXAMPLE"',
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
    ],
)
def test_code_and_manuals_about_credentials_hold_none(text):
    assert not holds_a_token(text)
