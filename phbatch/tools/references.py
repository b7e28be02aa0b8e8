"""What outputs are cited with, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

_ENTRIES = {
    "phbatch": """@software{phbatch,
  title = {phbatch: robust normalization and CARE restoration of phase-contrast time-lapses},
  author = {{The phbatch developers}},
  version = {VERSION}
}""",
    "care": """@article{weigert2018care,
  title = {Content-aware image restoration: pushing the limits of fluorescence microscopy},
  author = {Weigert, Martin and Schmidt, Uwe and Boothe, Tobias and others},
  journal = {Nature Methods},
  volume = {15},
  pages = {1090--1097},
  year = {2018},
  doi = {10.1038/s41592-018-0216-7}
}""",
    "tensorflow": """@inproceedings{abadi2016tensorflow,
  title = {{TensorFlow}: a system for large-scale machine learning},
  author = {Abadi, Mart{\\'i}n and Barham, Paul and Chen, Jianmin and others},
  booktitle = {12th USENIX Symposium on Operating Systems Design and Implementation (OSDI 16)},
  pages = {265--283},
  year = {2016}
}""",
    "jax": """@software{jax2018github,
  title = {{JAX}: composable transformations of {Python}+{NumPy} programs},
  author = {Bradbury, James and Frostig, Roy and Hawkins, Peter and others},
  url = {https://github.com/jax-ml/jax},
  year = {2018}
}""",
    "basic": """@article{peng2017basic,
  title = {A {BaSiC} tool for background and shading correction of optical microscopy images},
  author = {Peng, Tingying and Thorn, Kurt and Schroeder, Timm and others},
  journal = {Nature Communications},
  volume = {8},
  pages = {14836},
  year = {2017},
  doi = {10.1038/ncomms14836}
}""",
    "numpy": """@article{harris2020numpy,
  title = {Array programming with {NumPy}},
  author = {Harris, Charles R. and Millman, K. Jarrod and van der Walt, St{\\'e}fan J. and others},
  journal = {Nature},
  volume = {585},
  pages = {357--362},
  year = {2020},
  doi = {10.1038/s41586-020-2649-2}
}""",
    "scipy": """@article{virtanen2020scipy,
  title = {{SciPy} 1.0: fundamental algorithms for scientific computing in {Python}},
  author = {Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E. and others},
  journal = {Nature Methods},
  volume = {17},
  pages = {261--272},
  year = {2020},
  doi = {10.1038/s41592-019-0686-2}
}""",
    "zarr": """@software{zarr,
  title = {Zarr-Python},
  author = {{The Zarr developers}},
  doi = {10.5281/zenodo.3773449}
}""",
    "dask": """@inproceedings{rocklin2015dask,
  title = {Dask: parallel computation with blocked algorithms and task scheduling},
  author = {Rocklin, Matthew},
  booktitle = {Proceedings of the 14th Python in Science Conference},
  pages = {126--132},
  year = {2015},
  doi = {10.25080/Majora-7b98e3ed-013}
}""",
    "ngff": """@article{moore2021ngff,
  title = {{OME-NGFF}: a next-generation file format for expanding bioimaging data-access strategies},
  author = {Moore, Josh and Allan, Chris and Besson, S{\\'e}bastien and others},
  journal = {Nature Methods},
  volume = {18},
  pages = {1496--1498},
  year = {2021},
  doi = {10.1038/s41592-021-01326-w}
}""",
}


def bibtex(keys: Iterable[str]) -> str:
    """Entries by their keys, in that order.

    Examples
    --------
    >>> print(bibtex(["care"]).splitlines()[0])
    @article{weigert2018care,
    """
    return "\n\n".join(_ENTRIES[key].replace("VERSION", version("phbatch")) for key in keys) + "\n"
