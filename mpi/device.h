/* device.h - which GPU is a rank's, and that no two ranks take the same one by accident. */
#ifndef DEVICE_H
#define DEVICE_H

#include "pva/error.h"

enum { DEVICE_ID = 48 }; /* of struct pva_backend_info */

/* The device for one of `local_size` ranks on a node, each of which sees n_devices: its own local rank. More ranks than devices are refused
 * (PVA_USAGE) unless allow_shared; then they take turns. One visible device is taken whatever the number of ranks: a launcher may have given
 * each rank one of its own, which all of them see as number 0; device_check tells. */
int device_choose(int local_rank, int local_size, int n_devices, int allow_shared, int *device, struct pva_error *err);

/* ids [local_size]: what the ranks of the node opened; "" none. Fails for a rank whose device another rank has opened, too, or cannot be told
 * from another's, unless allow_shared. */
int device_check(int local_rank, int local_size, const char (*ids)[DEVICE_ID], int allow_shared, struct pva_error *err);

#endif
