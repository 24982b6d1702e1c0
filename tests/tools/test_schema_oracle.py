"""validation: validate agrees with the jsonschema package and with the official test cases of JSON Schema.

Where validate does not agree, it must refuse the schema as unsupported. The test cases come from the source
of the jsonschema package."""

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
NOT_SUPPORTED = {  # files of test cases for keywords that are not supported
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
    """The test cases of draft 2020-12: [(file, description, schema, value, valid)]"""
    folder = tmp_path_factory.mktemp("suite")
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", folder]
    if subprocess.run([sys.executable, "-m", "pip", "download", *options, SOURCE], check=False).returncode:
        pytest.skip(f"{SOURCE} could not be downloaded")
    rows = []
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        for member in archive.getmembers():
            path = member.name.split("/")
            if path[-2] == "draft2020-12" and path[-3] == "tests":
                for group in json.load(archive.extractfile(member)):
                    for test in group["tests"]:
                        description = f"{group['description']}: {test['description']}"
                        rows.append(
                            (path[-1][:-5], description, group["schema"], test["data"], test["valid"])
                        )
    return rows


def test_validate_agrees_with_the_official_cases_or_refuses_their_schema(cases):
    agree, refused, wrong = 0, {}, []  # refused: {file: descriptions}; wrong: [(file, description)]
    for file, description, schema, value, valid in cases:
        try:
            right = (not validate(value, schema)) == valid
        except UnsupportedSchema as error:
            refused.setdefault(file, []).append(f"{description} ({error})")
            continue
        agree += right
        if not right:
            wrong.append((file, description))
    supported = {file: descriptions for file, descriptions in refused.items() if file not in NOT_SUPPORTED}
    count, count_supported = (sum(map(len, files.values())) for files in (refused, supported))
    print(f"{agree} agree, {len(wrong)} wrong")
    print(f"{count} refused, {count_supported} of them for supported keywords")
    assert not wrong and agree > 600 and count_supported <= 50, supported


def test_the_official_cases_that_the_grammar_accepts_are_valid(cases):
    compiled = 0
    for _, description, schema, value, valid in cases:
        try:
            grammar = Grammar(schema)
        except UnsupportedSchema:
            continue
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        compiled += 1
        assert valid or not grammar.accepts(text), description
    assert compiled > 300


@settings(deadline=None, max_examples=300)
@given(schemas(), st.data())
def test_validate_agrees_with_jsonschema(schema, data):
    jsonschema = pytest.importorskip("jsonschema")
    value = data.draw(near(schema))
    try:
        valid = not validate(value, schema)
    except UnsupportedSchema:
        assume(False)
    # validate computes multipleOf exactly, jsonschema in floating point
    assume("multipleOf" not in json.dumps(schema))
    assert valid == jsonschema.Draft202012Validator(schema).is_valid(value)
