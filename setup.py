"""Builds the optional compiled module. Everything else is in pyproject.toml.

pyproject.toml could describe the module too, but setuptools calls that experimental, and it cannot leave PyPy out.
"""

import platform
import sysconfig

from setuptools import Extension, setup

# Elsewhere celery_argsize.measuring.walk does not import it: PyPy makes C extensions slow, and the module relies on the
# GIL, which a free-threaded build lacks.
USED = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

COMPILED = Extension(
    "celery_argsize.measuring._compiled",
    ["celery_argsize/measuring/_compiled.c"],
    extra_compile_args=["-O3"],  # makes vector code of the loops over characters; many Pythons choose -O2
    optional=True,  # without a compiler the installation goes on: pure.py measures the same, and `pip -v` tells why
)

setup(ext_modules=[COMPILED] if USED else [])
