/* pva-mpi tokenize: JSON lines of texts to token ids, or back. */
#include "pva/options.h"
#include "pva/tokenizer.h"
#include "commands.h"

#include <errno.h>
#include <string.h>

const struct pva_option pva_tokenize_options[] = {
    {"model", PVA_OPT_TEXT, "DIR", NULL, "model directory, or a tokenizer.model", NULL, 0, 0},
    {"decode", PVA_OPT_FLAG, NULL, "no", "read {\"ids\": [...]} and write {\"text\": ...}", NULL, 0, 0},
    {"bos", PVA_OPT_FLAG, NULL, "no", "put the beginning-of-text token before each line's ids", NULL, 0, 0},
    {"in", PVA_OPT_TEXT, "FILE", NULL, "read from FILE instead of standard input", NULL, 0, 0},
    {0},
};

int pva_command_tokenize(const struct pva_options *o, struct pva_error *err) {
    struct pva_tokenizer *tokenizer = NULL;
    const char *name = pva_options_text(o, "in");
    FILE *in = stdin;
    int64_t n_lines;
    if (pva_options_require(o, "model", err) || pva_tokenizer_open(pva_options_text(o, "model"), &tokenizer, err))
        return err->code;
    if (name && !(in = fopen(name, "re"))) pva_fail(err, PVA_INPUT, "%s: cannot open: %s", name, strerror(errno));
    else
        pva_tokenizer_lines(tokenizer, in, name ? name : "standard input", stdout,
                            pva_options_flag(o, "decode") ? PVA_TO_TEXT : PVA_TO_IDS, pva_options_flag(o, "bos"), &n_lines, err);
    if (in && in != stdin) fclose(in);
    pva_tokenizer_close(&tokenizer);
    return err->code;
}
