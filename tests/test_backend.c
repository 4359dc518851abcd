/* The registry: what exists answers, what does not says why in one line, and auto never fails. */
#include "check.h"

#include "pva/backend.h"

int main(void) {
    struct pva_error err = {0};
    CHECK(pva_backend_find("cpu", &err) == &pva_backend_cpu);
    CHECK(pva_backend_find("auto", &err) != NULL);
    CHECK_INT(err.code, PVA_OK);
    CHECK(pva_backend_find("opencl", &err) == NULL);
    CHECK_INT(err.code, PVA_USAGE);
    CHECK_HAS(err.msg, "auto, cpu or cuda");
    for (int i = 0; i < 2; i++) {
        err = (struct pva_error){0};
        const struct pva_backend_ops *cuda = pva_backend_find("cuda", &err);
        if (cuda) {
            CHECK_TEXT(cuda->name, "cuda");
            CHECK(cuda->count() >= 1);
            CHECK(pva_backend_find("auto", &err) == cuda);
        } else {
            CHECK_INT(err.code, PVA_IO);
            CHECK_HAS(err.msg, "--backend cpu");
            CHECK(pva_backend_find("auto", &(struct pva_error){0}) == &pva_backend_cpu);
        }
    }
    return check_report("test_backend");
}
