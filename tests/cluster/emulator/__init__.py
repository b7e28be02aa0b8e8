"""A Kubernetes that is none: its API in memory, its controllers and its kubelet in one process, its pods as processes.

The operator of Dask is the real one. What is emulated shows what operator, phbatch and manifests say to each other; it
shows nothing of scheduling on nodes, limits, networks, images, volumes or evictions of a real cluster.
"""

CORE, APPS, BATCH, DASK = "/api/v1", "/apis/apps/v1", "/apis/batch/v1", "/apis/kubernetes.dask.org/v1"
OWNED = {"pods": CORE, "services": CORE, "deployments": APPS, "daskworkergroups": DASK, "daskautoscalers": DASK}
OWNERS = OWNED | {"jobs": BATCH, "daskclusters": DASK}
PID, HOST = "emulator/process", "127.0.0.1"
