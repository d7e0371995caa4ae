"""C source for a Cortex-M4 without an operating system, run under an emulator of a board: its check answers 0."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gossamer.cli.main import main
from gossamer.csource import compiler
from gossamer.csource.device import network_of
from gossamer.csource.source import ram_bytes
from gossamer.modelfile.metadata import read_model_file
from tests.test_native_rounding import NETWORKS

COMPILER, EMULATOR = shutil.which("arm-none-eabi-gcc"), shutil.which("qemu-system-arm")
if COMPILER is None or EMULATOR is None:
    pytest.skip("no compiler or emulator of Cortex-M: arm-none-eabi-gcc, qemu-system-arm", allow_module_level=True)

pytestmark = pytest.mark.full
OLD = Path(__file__).parent / "compat" / "0.1"
CPU = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
# the board's memories; the exit code goes out by semihosting (SYS_EXIT_EXTENDED)
LINKER = """ENTRY(reset)
MEMORY { flash : ORIGIN = 0, LENGTH = 4M  ram : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > flash
  .data : { *(.data*) } > ram
  .bss : { *(.bss*) *(COMMON) } > ram
}
"""
STARTUP = """#include <stdint.h>
int net_check(void);
void reset(void);
static void leave(int code)
{
  uint32_t block[2];
  register uint32_t operation __asm__("r0") = 0x20;
  register uint32_t *argument __asm__("r1") = block;
  block[0] = 0x20026;
  block[1] = (uint32_t)code;
  __asm__ volatile("bkpt 0xab" : : "r"(operation), "r"(argument) : "memory");
}
void reset(void)
{
  *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* lets floats be computed */
  __asm__ volatile("dsb\\nisb");
  leave(net_check());
  for (;;) {}
}
__attribute__((section(".vectors"), used)) static void *const vectors[] = {(void *)0x20400000, (void *)reset};
"""


def check_code(folder: Path) -> int:
    """Compile a folder for the chip, run it on the emulated board, and give what net_check returned."""
    (folder / "board.ld").write_text(LINKER)
    (folder / "startup.c").write_text(STARTUP)
    sources = [str(folder / name) for name in ("net.o", "net_check.c", "startup.c")]
    flags = [*CPU, "-std=c99", "-ffreestanding", "-nostdlib", "-DNET_NO_MAIN", "-O2"]
    out = folder / "check.elf"
    # a layer of asm in startup.c is GNU's
    subprocess.run(
        [str(COMPILER), *flags, "-std=gnu99", "-T", str(folder / "board.ld"), *sources, "-o", str(out)], check=True
    )
    board = ["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]
    run = [str(EMULATOR), *board, "-semihosting-config", "enable=on,target=native", "-kernel", str(out)]
    return subprocess.run(run, timeout=120).returncode


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_a_network_answers_on_a_cortex_m4(name: str, tmp_path: Path) -> None:
    file = OLD / "classify.onnx"
    if name == "int8":
        file = tmp_path / "net.onnx"
        build, arguments = NETWORKS["inverted residual 5x5 /1, HardSwish"]
        file.write_bytes(build(*arguments))
    folder = tmp_path / "device"
    assert main(["export", str(file), "--to", "c", "--out", str(folder)]) == 0
    cpu = CPU if name == "float32" else CPU[:2]
    build_flags = [*compiler.STRICT, *cpu, "-Os", "-c", str(folder / "net.c"), "-o", str(folder / "net.o")]
    subprocess.run([str(COMPILER), *build_flags], check=True)
    assert (
        subprocess.run(["arm-none-eabi-nm", "-u", str(folder / "net.o")], capture_output=True, text=True).stdout == ""
    )
    sizes = compiler.elf_sizes((folder / "net.o").read_bytes())
    assert sizes is not None and sizes.ram == ram_bytes(network_of(read_model_file(file))) and sizes.code <= 8192
    subprocess.run(
        [str(COMPILER), *compiler.STRICT, *CPU, "-O2", "-c", str(folder / "net.c"), "-o", str(folder / "net.o")],
        check=True,
    )
    assert check_code(folder) == 0
    text = (folder / "net_check.c").read_text()
    wrong = re.sub(r"(expected_1\[\d+\] = \{\n  )[-0-9.eu]+", r"\g<1>77", text, count=1).replace(
        "{\n  77f", "{\n  77.0f"
    )
    assert wrong != text
    (folder / "net_check.c").write_text(wrong)
    assert check_code(folder) == 2
