"""The engine's include files: each says what it needs, so that it can be read, and checked by an editor, alone."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.runs import ENGINE

# what the file of an ISA says of it: these are those of `portable`, with AMX tiles, which are emulated without the instructions
PORTABLE = """#define WIDTH 4
#define WIDEST 1
#define MAKES(type) ((type) <= U8)
#define AMX_TILES
static constexpr int MAX_ROWS[5] = {0, 1, 0, 0, 0};
"""
AVX512 = "-mavx512f -mavx512vl -mavx512dq -mavx512bw -mavx512vnni -mfma"
# files of instructions that only some processors have: floats in a register, the compiler's flags
OF_ISAS = {
    "inorder.inc": (8, "-mavx2 -mfma"),
    "depthwise_words.inc": (16, AVX512),
    "depthwise_in_words.inc": (16, AVX512),
}


@pytest.mark.full
@pytest.mark.parametrize(
    "name", sorted(path.name for path in (ENGINE / "src").iterdir() if path.suffix in (".h", ".inc"))
)
def test_an_include_file_can_be_compiled_alone(name: str) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    width, flags = OF_ISAS.get(name, (4, ""))
    isa, plain = PORTABLE.replace("WIDTH 4", f"WIDTH {width}"), ("-std=c++17", "-fsyntax-only", "-Wno-psabi")
    line = [compiler, *plain, *flags.split(), "-I", str(ENGINE / "src"), "-x", "c++", "-"]
    done = subprocess.run(line, input=isa + f'#include "{name}"\n', capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
