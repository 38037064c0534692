"""PostgreSQL tables, one aggregate a module.

Importing any of them imports all: relationships name their other side as a string, and the
migrations compare the database with the whole. A new module in this folder needs no entry
anywhere. Queries live in `samplemind.repositories` and `samplemind.search`, not here.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)
