"""Laws of the model: anything in gives a value or our own error; what validation accepts, readers accept; broken policies only deny."""

from __future__ import annotations

import json
import string
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.errors import DataError, InputError
from tabinet.lib.ip import BITS, Prefix
from tabinet.model.codec import decode_document, decode_stored, encode_document, fail_closed
from tabinet.model.constraints import CONSTRAINTS
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import Document, load_documents
from tabinet.model.endpoint_names import WorkloadEndpointName, parse_endpoint_name
from tabinet.model.examples import EXAMPLES
from tabinet.model.keys import AffinityKey, BlockKey, HandleKey, Key, ResourceKey, VirtualAffinityKey, kind_prefix, parse_path, path_of
from tabinet.model.kinds import BY_NAME, KINDS
from tabinet.model.shapes import Listing, Object, Scalar, Shape, Table, shape_of
from tabinet.model.validate import examine, is_sound, validate, validate_all
from tabinet.model.views import view_of, view_paths

KIND_NAMES = [kind.name for kind in KINDS]
STORED = [kind for kind in KINDS if not kind.view]
PART = st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), min_size=1, max_size=12)


@st.composite
def blocks(draw: st.DrawFn) -> Prefix:
    family = draw(st.sampled_from((4, 6)))
    length = draw(st.integers(0, BITS[family]))
    shift = BITS[family] - length
    return Prefix(family, draw(st.integers(0, (1 << BITS[family]) - 1)) >> shift << shift, length)


def resource_keys() -> st.SearchStrategy[Key]:
    return st.sampled_from(STORED).flatmap(
        lambda kind: st.builds(
            ResourceKey,
            st.just(kind.name),
            st.just("default") if kind.name == "IPAMConfiguration" else PART,
            PART if kind.namespaced else st.just(""),
        )
    )


KEYS: st.SearchStrategy[Key] = st.one_of(
    resource_keys(),
    st.builds(VirtualAffinityKey, PART, blocks()),
    st.builds(BlockKey, blocks()),
    st.builds(AffinityKey, PART, blocks()),
    st.builds(HandleKey, PART),
)


@given(KEYS)
def test_paths_of_keys_round_trip(key: Key) -> None:
    path = path_of(key)
    assert parse_path(path) == key
    if isinstance(key, ResourceKey):
        assert path.startswith(kind_prefix(key.kind, key.namespace))


@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from(["calico", "ipam", "v2", "v3", "resources", "ippools", "10.0.0.0-26", "block", "ipv4", "x", ""])).map(
        "/".join
    )
)
def test_any_path_is_a_key_or_none(path: str) -> None:
    key = parse_path(path)
    if key is not None:
        assert parse_path(path_of(key)) == key


NAME_PART = st.text(string.ascii_lowercase + "-.", min_size=1, max_size=8).filter(lambda text: text.strip("-") == text)


@given(st.builds(WorkloadEndpointName, NAME_PART, NAME_PART, NAME_PART, NAME_PART))
def test_endpoint_names_round_trip(name: WorkloadEndpointName) -> None:
    assert parse_endpoint_name(str(name)) == name


@given(st.text("ab-", max_size=16))
def test_any_name_is_four_parts_or_a_value_error(text: str) -> None:
    try:
        name = parse_endpoint_name(text)
    except ValueError:
        return
    assert str(name) == text


# --- documents made from the shapes of the kinds ---------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "",
        "a",
        "b-1",
        "A",
        "has(a)",
        "all()",
        "global()",
        "a = b",
        "10.0.0.0/16",
        "10.0.0.5",
        "10.0.0.5/32",
        "10.0.0.5/8",
        "fd00::/64",
        "fd00::1",
        "TCP",
        "ICMP",
        "ICMPv6",
        "UDP",
        "Allow",
        "Deny",
        "Log",
        "Pass",
        "Ingress",
        "Egress",
        "80:90",
        "http",
        "1.10",
        "65000:1",
        "30s",
        "Never",
        "Always",
        "Info",
        "Workload",
        "02:00:00:00:00:01",
        "k8s",
        "\x00",
        "é",
    ]
)
NUMBERS = st.sampled_from([0, 1, 4, 6, 26, 80, 255, 64512, 65536, -1, 1 << 70])
ODDITIES = st.one_of(
    st.none(), WORDS, NUMBERS, st.booleans(), st.floats(), st.lists(WORDS, max_size=2), st.dictionaries(WORDS, WORDS, max_size=2)
)


def values(shape: Shape, odd: bool) -> st.SearchStrategy[Any]:
    """Values that nearly fit a shape; with ``odd`` also some that do not fit at all."""
    found: st.SearchStrategy[Any]
    match shape:
        case Scalar(types, form):
            by_type: dict[type, st.SearchStrategy[Any]] = {str: WORDS, int: NUMBERS, float: NUMBERS, bool: st.booleans()}
            found = st.one_of([by_type[kind] for kind in types])
            if form is not None and form.choices:
                found = st.sampled_from(form.choices)
        case Listing(item):
            found = st.lists(values(item, odd), max_size=3)
        case Table(value):
            found = st.dictionaries(WORDS, values(value, odd), max_size=2)
        case Object(_, fields):
            required = {name: values(field.shape, odd) for name, field in fields.items() if field.required}
            optional = {name: values(field.shape, odd) for name, field in list(fields.items())[:18] if not field.required}
            found = st.fixed_dictionaries(required, optional=optional)
        case _:
            found = WORDS
    return st.one_of(found, found, found, ODDITIES) if odd else found


def documents(odd: bool) -> st.SearchStrategy[dict[str, Any]]:
    def of(name: str) -> st.SearchStrategy[dict[str, Any]]:
        spec = shape_of(BY_NAME[name].record).fields["spec"].shape
        names = {
            "ClusterInformation": "default",
            "IPAMConfiguration": "default",
            "KubeControllersConfiguration": "default",
            "LiveMigration": "a-k8s-b-e",
            "BGPConfiguration": "default",
            "FelixConfiguration": "default",
            "WorkloadEndpoint": "a-k8s-b-e",
        }
        metadata: dict[str, Any] = {"name": names.get(name, "x")}
        if BY_NAME[name].namespaced:
            metadata["namespace"] = "ns"
        return values(spec, odd).map(lambda made: {"apiVersion": "projectcalico.org/v3", "kind": name, "metadata": metadata, "spec": made})

    return st.sampled_from([kind.name for kind in STORED]).flatmap(of)


def key_of(document: dict[str, Any]) -> ResourceKey:
    metadata = document["metadata"]
    return ResourceKey(document["kind"], metadata["name"], metadata.get("namespace", ""))


@given(documents(odd=True))
@settings(max_examples=120, deadline=None)
def test_validation_judges_anything_and_what_it_accepts_readers_accept(document: dict[str, Any]) -> None:
    problems = validate(Document(data=document, source="f", index=1, line=1))
    assert all(problem.path and problem.allowed and problem.value for problem in problems)
    if not problems:
        stored = encode_document(with_defaults(document))
        assert decode_document(stored) == json.loads(stored)
        assert decode_stored(path_of(key_of(document)), stored) is not None


@given(documents(odd=False) | documents(odd=True))
@settings(max_examples=150, deadline=None)
def test_the_fast_judgement_accepts_nothing_that_a_walk_would_refuse(document: dict[str, Any]) -> None:
    kind = BY_NAME[document["kind"]]
    if is_sound(kind, document):
        assert examine(shape_of(kind.record), document, CONSTRAINTS)[1] == []


@given(documents(odd=False))
@settings(max_examples=80, deadline=None)
def test_the_same_for_documents_that_nearly_fit(document: dict[str, Any]) -> None:
    if not validate(Document(data=document, source="f", index=1, line=1)):
        assert decode_stored(path_of(key_of(document)), encode_document(with_defaults(document))) is not None


@given(documents(odd=True))
@settings(max_examples=120, deadline=None)
def test_stored_values_are_read_or_refused_and_broken_policies_only_deny(document: dict[str, Any]) -> None:
    path = path_of(key_of(document))
    stored = json.dumps(document).encode()
    try:
        decode_stored(path, stored)
    except DataError as error:
        assert error.problems
    closed = fail_closed(path, stored)
    if closed is None:
        return
    key, record = closed
    assert key == key_of(document)
    spec: Any = record.spec  # type: ignore[union-attr]  # only resources are closed
    if key.kind == "WorkloadEndpoint":
        assert set(spec.ip_networks) <= set(document["spec"].get("ipNetworks") or ())
    elif key.kind == "Tier":
        assert spec.default_action == "Deny"
    else:
        assert all(rule.action == "Deny" for rule in (*spec.ingress, *spec.egress))
    if key.kind.endswith("Policy"):
        assert {kind.lower() for kind in spec.types} == {name for name in ("ingress", "egress") if getattr(spec, name)}
        assert spec.types


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(KEYS, st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=100)
def test_any_bytes_are_a_record_or_our_error(key: Key, value: bytes) -> None:
    try:
        decode_stored(path_of(key), value)
    except DataError as error:
        assert error.problems
    fail_closed(path_of(key), value)


VIEWS = [kind.name for kind in KINDS if kind.view]


@given(
    st.one_of(
        st.builds(BlockKey, blocks()),
        st.builds(HandleKey, PART),
        *(st.builds(key, PART, blocks()) for key in (AffinityKey, VirtualAffinityKey)),
    ),
    st.dictionaries(st.text(max_size=8), JSON, max_size=3),
)
def test_a_view_is_found_again_by_its_name(key: Key, stored: dict[str, Any]) -> None:
    document = view_of(path_of(key), json.dumps(stored).encode())
    assert document is not None
    paths = view_paths(document["kind"], document["metadata"]["name"])
    assert path_of(key) in paths or document["kind"] == "IPAMHandle"


@given(st.sampled_from(VIEWS), st.text(max_size=40) | st.text("0123456789abcdef-.:/", max_size=40))
def test_any_text_names_a_view_or_nothing(kind: str, name: str) -> None:
    for path in view_paths(kind, name):
        assert parse_path(path) is not None


# --- files and values that were sound once ----------------------------------------------------------------------------

EXAMPLE_TEXTS = [text.encode() for text in EXAMPLES.values()]
TOKENS = [
    *(
        b"&a [*a, *a]",
        b"*a",
        b"<<: *a",
        b"!!python/object:x",
        b"!!binary x",
        b"{",
        b"[",
        b"- ",
        b": ",
        b"\n",
        b"\t",
        b"\x00",
        b"\x07",
        b"\xff",
    ),
    *(
        b"\xfe\xff",
        b"'",
        b'"',
        b"|",
        b">",
        b"%YAML 1.1",
        b"---",
        b"...",
        b"1e999",
        b".nan",
        b"0x" + b"f" * 40,
        b"9" * 5000,
        b"-",
        b"null",
        b"~",
    ),
    *(
        b"2026-11-22",
        b"12:30:45",
        b"yes",
        b"[" * 200,
        b"{a: " * 200,
        b"spec:",
        b"kind: List",
        b"items:",
        b"metadata: {name: x}",
        b"\xe2\x80\xa8",
    ),
]


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """An example with pieces cut out, doubled, and strange ones put in."""
    text = draw(st.sampled_from(EXAMPLE_TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(("cut", "double", "insert", "encode"))):
            case "cut":
                text = text[:at] + text[at + draw(st.integers(1, 12)) :]
            case "double":
                text = text[:at] + text[max(0, at - draw(st.integers(1, 40))) :]
            case "insert":
                text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at:]
            case _:
                text = text.decode("utf-8", "replace").encode(
                    draw(st.sampled_from(("utf-16", "utf-8-sig", "latin-1", "utf-32"))), "replace"
                )
    return text


@given(damaged_files())
@settings(max_examples=300, deadline=None)
def test_any_damage_to_a_file_is_documents_or_our_error(text: bytes) -> None:
    try:
        found = load_documents(text, "f.yaml")
    except InputError as error:
        assert all(problem.source == "f.yaml" and problem.allowed for problem in error.problems)
        return
    for problem in validate_all(found):
        assert problem.allowed
        assert problem.line > 0


STRANGE: st.SearchStrategy[Any] = st.one_of(
    JSON,
    st.just(10**400),
    st.just(1e308),
    st.just("\x00"),
    st.just("\ud7ff" * 300),
    st.just([[[[[[]]]]]]),
    st.just({"": {"": None}}),
    ODDITIES,
)


@st.composite
def damaged_values(draw: st.DrawFn) -> tuple[str, bytes]:
    """An example as it is stored, with something else in some place."""
    [document] = load_documents(draw(st.sampled_from(EXAMPLE_TEXTS)), "example")
    data = document.data
    inside = data
    while True:
        name = draw(st.sampled_from(sorted(inside)))
        if not isinstance(inside[name], dict) or not inside[name] or draw(st.booleans()):
            inside[name] = draw(STRANGE)
            break
        inside = inside[name]
    kind = BY_NAME[str(document.data["kind"])] if document.data["kind"] in KIND_NAMES else draw(st.sampled_from(STORED))
    name = "default" if kind.name == "IPAMConfiguration" else "x"
    path = path_of(ResourceKey(STORED[0].name if kind.view else kind.name, name, "ns" if kind.namespaced else ""))
    text = json.dumps(data, ensure_ascii=draw(st.booleans()))
    return path, text.encode("utf-8", "surrogatepass")


@given(damaged_values())
@settings(max_examples=300, deadline=None)
def test_any_damage_to_a_stored_value_is_a_record_or_our_error(stored: tuple[str, bytes]) -> None:
    path, value = stored
    try:
        decode_stored(path, value)
    except DataError as error:
        assert error.problems
    fail_closed(path, value)
    try:
        data = decode_document(value, path)
    except DataError:
        return
    assert decode_document(encode_document(data), path) == data or "metadata" in data
    validate(Document(data=data, source="f", index=1, line=1))


@given(st.text(max_size=200) | st.binary(max_size=100) | st.text("ab:- \n{}[]'\"&*!<?#,|>~0.1e", max_size=60))
@settings(max_examples=250, deadline=None)
def test_any_file_is_documents_or_our_error(text: str | bytes) -> None:
    try:
        documents_found = load_documents(text, "f")
    except InputError as error:
        assert error.problems
        return
    for document in documents_found:
        json.dumps(document.data, allow_nan=False)
        validate(document)


PLAIN = st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=5), JSON, max_size=4)


@given(st.lists(PLAIN, max_size=3))
@settings(max_examples=60, deadline=None)
def test_what_is_written_as_yaml_is_read_as_it_was(contents: list[dict[str, Any]]) -> None:
    text = yaml.safe_dump_all(contents, allow_unicode=True, sort_keys=False)
    try:
        found = load_documents(text, "f")
    except InputError as error:
        # Integers beyond what plain words may be are the only plain values that do not come back.
        assert error.problems
        return
    if all(not isinstance(content.get("items"), list) for content in contents):
        assert len(found) == len(contents)
        for document, content in zip(found, contents, strict=True):
            assert json.loads(json.dumps(document.data)) == content or _has_odd_words(content)


def _has_odd_words(value: Any) -> bool:
    """True for texts and numbers that YAML 1.1 writers and we read differently on purpose."""
    match value:
        case dict():
            return any(_has_odd_words(item) for pair in value.items() for item in pair)
        case list():
            return any(_has_odd_words(item) for item in value)
        case bool() | None:
            return False
        case int():
            return abs(value) >= 10**30
        case float():
            return True
        case str():
            return any(character not in string.ascii_letters for character in value)
    return True


@given(PLAIN)
def test_what_is_written_as_json_is_read_as_it_was(content: dict[str, Any]) -> None:
    if isinstance(content.get("kind"), str) and content["kind"].endswith("List"):
        return
    (document,) = load_documents(json.dumps(content), "f.json")
    assert document.data == content
