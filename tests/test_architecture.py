"""The house keeps its plan: who may import whom, what things are called, what importing costs, what is never used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import palate

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "palate"

STOREYS = (
    {"core", "data"},
    {"backbones", "parts", "training", "evaluation", "annotation"},
    {"tokenizers", "models", "agents", "studies"},
    {"serving", "cluster", "cli"},
)
"""Words, tools, systems, doors. A file directly in the package (``systems.py``, ``experiment.py`` …) is a door."""

ACROSS = {("data", "core")}
"""Rooms of one storey that may import each other, beside the doors."""

NO_SIBLINGS = {"models", "tokenizers", "studies"}
WITHOUT_TORCH = {"core", "evaluation"}
FORBIDDEN_NAMES = {"utils", "util", "misc", "helpers", "helper", "common", "manager", "base"}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "os.system", "os.popen", "pickle.load", "numpy.random.seed",
                   "np.random.seed", "random.seed", "logging.basicConfig", "torch.set_default_dtype",
                   "torch.set_num_threads", "yaml.load"}  # fmt: skip
HEAVY = ("torch", "polars", "scipy", "pydantic_settings")
FILE_LINES, FUNCTION_LINES = 400, 50

FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, wherever the import stands; a relative one is made absolute."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # ``from palate import core`` imports the room, ``from palate.core import ragged`` the file.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    """The room of a dotted name, "door" for a file directly in the package, None for what is not ours."""
    parts = module.split(".")
    if parts[0] != "palate" or len(parts) == 1:
        return None
    if (PACKAGE / parts[1]).is_dir():
        return parts[1]
    return "door" if (PACKAGE / f"{parts[1]}.py").is_file() else None


def storey_of(room: str) -> int:
    return next((i for i, rooms in enumerate(STOREYS) if room in rooms), len(STOREYS) - 1)


def faults_of_storeys(path: Path) -> list[str]:
    """What a file imports from above, or from a neighbour."""
    room = room_of(module_of(path))
    if room is None:
        return []
    faults = []
    for line, name in imports(path):
        other = room_of(name)
        if other is None or other == room:
            continue
        mine, theirs = storey_of(room), storey_of(other)
        doors = mine == theirs == len(STOREYS) - 1
        if theirs > mine or (theirs == mine and not doors and (room, other) not in ACROSS):
            faults.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    return faults


def faults_of_siblings(path: Path) -> list[str]:
    """A file of models/, tokenizers/ or studies/ that imports another one there."""
    module = module_of(path)
    room = room_of(module)
    if room not in NO_SIBLINGS or path.name == "__init__.py":
        return []
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name in imports(path)
        if room_of(name) == room and name != module and not name.startswith(f"{module}.")
    ]


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for a chain of attributes, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""


def faults_of_calls(path: Path) -> list[str]:
    """Text that runs as code, weights that run as code, and settings of the whole process."""
    faults = []
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        given = {word.arg: word.value for word in node.keywords}
        bad = name in FORBIDDEN_CALLS
        bad |= name == "torch.load" and not _is(given.get("weights_only"), True)
        bad |= _is(given.get("allow_pickle"), True) or _is(given.get("shell"), True)
        if bad:
            faults.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {name}")
    return faults


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 20
    assert {"core", "data", "cli"} <= {room_of(module_of(path)) for path in FILES}


def test_every_folder_is_a_room_of_the_plan() -> None:
    known = set().union(*STOREYS)
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} <= known


def test_rooms_import_only_from_below() -> None:
    assert [fault for path in FILES for fault in faults_of_storeys(path)] == []


def test_siblings_do_not_import_each_other() -> None:
    assert [fault for path in FILES for fault in faults_of_siblings(path)] == []


def test_words_and_judgement_never_import_torch() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if room_of(module_of(path)) in WITHOUT_TORCH
        for line, name in imports(path)
        if name.split(".")[0] in ("torch", "safetensors") and name.startswith(("torch", "safetensors.torch"))
    ]
    assert faults == []


def test_judgement_loads_no_torch_by_way_of_others() -> None:
    rooms = sorted(module_of(path) for path in FILES if room_of(module_of(path)) == "evaluation")
    program = f"import sys, importlib\nfor name in {rooms}: importlib.import_module(name)"
    program += "\nprint('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_only_serving_sees_the_web_and_only_backbones_the_hub() -> None:
    homes = {"fastapi": "serving", "starlette": "serving", "uvicorn": "serving", "transformers": "backbones",
             "huggingface_hub": "backbones", "sentence_transformers": "backbones", "ray": "cluster"}  # fmt: skip
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        for line, name in imports(path)
        if homes.get(name.split(".")[0], room_of(module_of(path))) != room_of(module_of(path))
    ]
    assert faults == []


def test_names_say_what_is_inside() -> None:
    names = [path for path in PACKAGE.rglob("*") if path.stem.strip("_") in FORBIDDEN_NAMES]
    classes = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and (node.name.startswith("Base") or node.name.endswith(("Manager", "Helper", "Utils", "Base")))
    ]
    assert names == []
    assert classes == []


def test_nothing_runs_text_or_weights_as_code() -> None:
    modules = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        for line, name in imports(path)
        if name.split(".")[0] in FORBIDDEN_IMPORTS
    ]
    assert modules == []
    assert [fault for path in FILES for fault in faults_of_calls(path)] == []


@pytest.mark.parametrize(
    ("where", "source", "finder"),
    [
        ("core/x.py", "from palate.data import split", faults_of_storeys),
        ("core/x.py", "def f():\n    import palate.models.sequential.sasrec", faults_of_storeys),
        ("core/x.py", "from ..systems import build", faults_of_storeys),
        ("training/x.py", "from palate import parts", faults_of_storeys),
        ("models/graph/x.py", "from palate.systems import build", faults_of_storeys),
        ("models/graph/x.py", "from palate.models.sequential.sasrec import SASRec", faults_of_siblings),
        ("models/graph/x.py", "from . import lightgcn", faults_of_siblings),
        ("data/x.py", "eval('1')", faults_of_calls),
        ("data/x.py", "torch.load(path)", faults_of_calls),
        ("data/x.py", "np.load(path, allow_pickle=True)", faults_of_calls),
        ("data/x.py", "np.random.seed(0)", faults_of_calls),
    ],
)
def test_the_checks_find_what_they_look_for(
    where: str, source: str, finder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rule, shown a file that breaks it. A rule that finds nothing anywhere would be no rule."""
    path = PACKAGE / where
    original = tree_of
    monkeypatch.setattr(
        sys.modules[__name__], "tree_of", lambda asked: ast.parse(source) if asked == path else original(asked)
    )
    assert len(finder(path)) == 1  # type: ignore[operator]


def test_what_is_allowed_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {
        "data/x.py": "from palate.core.dataset import Dataset",
        "models/graph/x.py": "import torch\nfrom palate.parts import losses\nfrom palate.data import batches",
        "cli/x.py": "from palate.systems import build\nfrom palate import experiment",
        "data/y.py": "torch.load(path, weights_only=True)\nnp.load(path)\nspec.loader.exec_module(module)",
    }
    for where, source in allowed.items():
        monkeypatch.setattr(sys.modules[__name__], "tree_of", lambda _, text=source: ast.parse(text))
        path = PACKAGE / where
        assert faults_of_storeys(path) + faults_of_siblings(path) + faults_of_calls(path) == []


def test_importing_palate_is_light() -> None:
    code = f"import palate, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_a_word_needs_no_torch() -> None:
    words = [module_of(path) for path in sorted((PACKAGE / "core").glob("*.py"))]
    code = (
        f"import sys; [__import__(name) for name in {words!r}]; print('torch' in sys.modules, 'scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_public_names_resolve() -> None:
    for name in palate.__all__:
        assert getattr(palate, name) is not None
    assert set(palate.__all__) <= set(dir(palate))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        palate.nonsense  # noqa: B018


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "__main__.py"], ids=module_of)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{path.relative_to(ROOT)} has no docstring"


def test_readme_tree_lists_every_room() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = [f"{path.name}/" for path in sorted(PACKAGE.iterdir()) if any(path.glob("**/*.py"))]
    families = [f"{path.name}/" for path in sorted((PACKAGE / "models").iterdir()) if any(path.glob("*.py"))]
    assert [room for room in [*rooms, *families] if room not in readme] == []


def test_budgets_are_reported(record_property: object) -> None:
    """Files over 400 lines and functions over 50: a reviewer decides, the test only says."""
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in FILES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    ]
    long += [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    record_property("over_budget", long)  # type: ignore[operator]
    print("\n".join(["over budget:", *long]))
