#include "commands.h"

const struct pva_option pva_common_options[] = {
    {"quiet", PVA_OPT_FLAG, NULL, "no", "no progress, no summary", NULL, 0, 0},
    {"verbose", PVA_OPT_FLAG, NULL, "no", "say more", NULL, 0, 0},
    {NULL, 0, NULL, NULL, NULL, NULL, 0, 0},
};
