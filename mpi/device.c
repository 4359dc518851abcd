#include "device.h"

#include <string.h>

int device_choose(int local_rank, int local_size, int n_devices, int allow_shared, int *device, struct pva_error *err) {
    *device = 0;
    if (n_devices < 1) return pva_fail(err, PVA_IO, "no GPU is visible to this process (see CUDA_VISIBLE_DEVICES)");
    if (local_size > n_devices && n_devices > 1 && !allow_shared)
        return pva_fail(err, PVA_USAGE, "%d ranks on this node and %d GPUs: start at most one rank per GPU, or say --allow-shared-gpu", local_size, n_devices);
    *device = local_rank % n_devices;
    return PVA_OK;
}

int device_check(int local_rank, int local_size, const char (*ids)[DEVICE_ID], int allow_shared, struct pva_error *err) {
    if (allow_shared || local_size == 1) return PVA_OK;
    for (int i = 0; i < local_size; i++) {
        if (i == local_rank || strcmp(ids[i], ids[local_rank])) continue;
        if (!ids[i][0]) return pva_fail(err, PVA_IO, "the GPUs of this node cannot be told apart: start one rank per node, or say --allow-shared-gpu");
        return pva_fail(err, PVA_USAGE, "local ranks %d and %d have the same GPU (%.40s): start at most one rank per GPU (srun --gpus-per-task=1), or say "
                        "--allow-shared-gpu", i < local_rank ? i : local_rank, i < local_rank ? local_rank : i, ids[i]);
    }
    return PVA_OK;
}
