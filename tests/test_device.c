/* Which GPU a rank takes, without one. */
#include "check.h"
#include "device.h"

#include <string.h>

static int chosen(int rank, int size, int n, int shared) {
    struct pva_error err = {0};
    int device = -7;
    return device_choose(rank, size, n, shared, &device, &err) ? -err.code : device;
}

static void choosing(void) {
    for (int size = 1; size <= 8; size++)
        for (int rank = 0; rank < size; rank++) CHECK_INT(chosen(rank, size, 8, 0), rank);
    for (int rank = 0; rank < 3; rank++) {
        CHECK_INT(chosen(rank, 3, 2, 0), -PVA_USAGE); /* on every rank, so that none goes on alone */
        CHECK_INT(chosen(rank, 3, 2, 1), rank % 2);
        CHECK_INT(chosen(rank, 3, 1, 0), 0); /* each may have its own: the identities decide */
        CHECK_INT(chosen(rank, 3, 0, 1), -PVA_IO);
    }
}

static int checked(int rank, int size, const char (*ids)[DEVICE_ID], int shared) {
    struct pva_error err = {0};
    device_check(rank, size, ids, shared, &err);
    if (err.code) CHECK(strstr(err.msg, "--allow-shared-gpu") != NULL);
    return err.code;
}

static void checking(void) {
    const char own[3][DEVICE_ID] = {"GPU-a", "GPU-b", "GPU-c"}, two[3][DEVICE_ID] = {"GPU-a", "GPU-b", "GPU-a"}, unknown[2][DEVICE_ID] = {"", ""};
    for (int rank = 0; rank < 3; rank++) {
        CHECK_INT(checked(rank, 3, own, 0), PVA_OK);
        CHECK_INT(checked(rank, 3, two, 0), rank == 1 ? PVA_OK : PVA_USAGE);
        CHECK_INT(checked(rank, 3, two, 1), PVA_OK);
    }
    CHECK_INT(checked(0, 2, unknown, 0), PVA_IO);
    CHECK_INT(checked(0, 1, unknown, 0), PVA_OK);
}

int main(void) {
    choosing();
    checking();
    return check_report("device");
}
