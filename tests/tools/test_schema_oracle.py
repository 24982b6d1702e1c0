"""validate compared with the jsonschema package, and with the official test cases in its source package."""

import json
import subprocess
import sys
import tarfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from schemas import near, schemas

from tools.grammar import Grammar
from tools.schema import UnsupportedSchema
from tools.validation import validate

pytestmark = pytest.mark.oracle
SOURCE = "jsonschema==4.9.1"  # the last version whose source package contains the test cases
PARTS = {
    "dynamicRef",
    "anchor",
    "id",
    "vocabulary",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "maxContains",
    "minContains",
    "dependentRequired",
    "dependentSchemas",
    "if-then-else",
    "propertyNames",
    "patternProperties",
    "refRemote",
    "unknownKeyword",
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """(file, description, schema, value, valid) of draft 2020-12."""
    folder = tmp_path_factory.mktemp("suite")
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", folder]
    if subprocess.run([sys.executable, "-m", "pip", "download", *options, SOURCE], check=False).returncode:
        pytest.skip(f"{SOURCE} could not be downloaded")
    found = []
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        for member in archive.getmembers():
            path = member.name.split("/")
            if path[-2] == "draft2020-12" and path[-3] == "tests":
                for group in json.load(archive.extractfile(member)):
                    for test in group["tests"]:
                        what = f"{group['description']}: {test['description']}"
                        found.append((path[-1][:-5], what, group["schema"], test["data"], test["valid"]))
    return found


def test_official_cases_agree_or_are_refused_by_name(cases):
    agree, refused, wrong = 0, {}, []
    for file, what, schema, value, valid in cases:
        try:
            right = (not validate(value, schema)) == valid
        except UnsupportedSchema as error:
            refused.setdefault(file, []).append(f"{what} ({error})")
            continue
        agree += right
        if not right:
            wrong.append((file, what))
    lost = {file: what for file, what in refused.items() if file not in PARTS}
    every, here = (sum(map(len, files.values())) for files in (refused, lost))
    print(
        f"{agree} agree, {len(wrong)} wrong, {every} refused by name, {here} of them for supported keywords"
    )
    assert not wrong and agree > 600 and here <= 50, lost


def test_the_official_cases_that_the_grammar_accepts_are_valid(cases):
    tried = 0
    for _, what, schema, value, valid in cases:
        try:
            grammar = Grammar(schema)
        except UnsupportedSchema:
            continue
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        tried += 1
        assert valid or not grammar.accepts(text), what
    assert tried > 300


@settings(deadline=None, max_examples=300)
@given(schemas(), st.data())
def test_validate_agrees_with_jsonschema(schema, data):
    jsonschema = pytest.importorskip("jsonschema")
    value = data.draw(near(schema))
    try:
        mine = not validate(value, schema)
    except UnsupportedSchema:
        assume(False)
    # multipleOf is exact here, while jsonschema computes it in floating point
    assume("multipleOf" not in json.dumps(schema))
    assert mine == jsonschema.Draft202012Validator(schema).is_valid(value)
