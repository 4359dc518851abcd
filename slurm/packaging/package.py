# Spack: put this file into packages/pva_mpi/ (Spack before 1.0: packages/pva-mpi/) of a repository of your own and build the clone:
#     spack dev-build -d /path/to/the/clone pva-mpi@develop ^openmpi+pmi schedulers=slurm
from spack.package import *

try:
    from spack_repo.builtin.build_systems.cmake import CMakePackage
except ImportError:
    pass  # before Spack 1.0, spack.package brings it


class PvaMpi(CMakePackage):
    """Does a language model know that the program it is writing is right? Generates programs with Gemma 2 on the machines of a cluster, runs their tests
    and studies the residual stream with sparse autoencoders: C, MPI, parallel HDF5, optionally CUDA."""

    license("MIT")
    version("develop")

    variant("cuda", default=False, description="Compute on NVIDIA GPUs")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type=("build", "run"))
    depends_on("python@3.9:", type=("build", "run"))  # runs the generated programs
    depends_on("mpi@3:")
    depends_on("hdf5+mpi+hl")
    depends_on("gsl")
    depends_on("jansson")
    depends_on("libyaml")
    depends_on("zlib-api")
    depends_on("libseccomp")
    depends_on("sentencepiece")
    depends_on("cuda@12:", when="+cuda")

    def cmake_args(self):
        return [self.define("PVA_CUDA", "ON" if self.spec.satisfies("+cuda") else "OFF"), self.define("HDF5_ROOT", self.spec["hdf5"].prefix)]
