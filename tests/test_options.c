#include "check.h"
#include "pva/log.h"
#include "pva/options.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct pva_option common[] = {
    {"model", PVA_OPT_TEXT, "DIR", NULL, "the model directory", NULL, 0, 0},
    {"seed", PVA_OPT_INT, "S", "0", "seed of every random draw", NULL, 0, 0},
    {"verbose", PVA_OPT_FLAG, NULL, NULL, "say more", NULL, 0, 0},
    {"resume", PVA_OPT_FLAG, NULL, "yes", "go on where it stopped", NULL, 0, 0},
    {NULL, PVA_OPT_TEXT, NULL, NULL, NULL, NULL, 0, 0},
};
static const struct pva_option own[] = {
    {"batch-size", PVA_OPT_INT, "N", "8", "sequences at a time", NULL, 1, 4096},
    {"temperature", PVA_OPT_REAL, "T", "0.0", "0: greedy", NULL, 0, 2},
    {"shift", PVA_OPT_REAL, "X", NULL, "any number", NULL, 0, 0},
    {"threads", PVA_OPT_INT, "N", NULL, "at least one", NULL, 1, INFINITY},
    {"dtype", PVA_OPT_CHOICE, NULL, "bf16", "operand type", "f32|bf16", 0, 0},
    {"gpu-memory", PVA_OPT_BYTES, "SIZE", "30G", "memory to use on the GPU", NULL, 0, 0},
    {"steer", PVA_OPT_LIST, "SPEC", NULL, "a direction to add", NULL, 0, 0},
    {NULL, PVA_OPT_TEXT, NULL, NULL, NULL, NULL, 0, 0},
};
static const struct pva_option *const tables[] = {common, own, NULL};

static struct pva_options *o;
static struct pva_error err;

static int parse_words(int n, const char *const *words) {
    char *argv[40] = {"pva-mpi"};
    for (int i = 0; i < n; i++) argv[i + 1] = (char *)(uintptr_t)words[i];
    if (o) pva_options_free(&o);
    CHECK(o == NULL);
    memset(&err, 0, sizeof err);
    int status = pva_options_parse("pva-mpi try", tables, n + 1, argv, &o, &err);
    CHECK((status == 0) == (o != NULL));
    CHECK_INT(err.code, status);
    return status;
}
#define WORDS(...) \
    (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)), (const char *const[]) { __VA_ARGS__ }
#define PARSE(...) parse_words(WORDS(__VA_ARGS__))
#define GOOD(...) CHECK_OK(PARSE(__VA_ARGS__), err)
/* CHECK_TEXT that names the line of the caller. */
static void check_message(const char *expected, int line) {
    check_count++;
    if (!strcmp(err.msg, expected)) return;
    check_fail();
    fprintf(stderr, "test_options.c:%d: message \"%s\", expected \"%s\"\n", line, err.msg, expected);
}
#define BAD(message, ...) \
    do { \
        CHECK_INT(PARSE(__VA_ARGS__), PVA_USAGE); \
        check_message(message, __LINE__); \
    } while (0)

static char directory[] = "test_options_XXXXXX";
static char config_path[64];

static const char *config(const char *text, size_t n) {
    FILE *f = fopen(config_path, "wb");
    CHECK_FATAL(f && fwrite(text, 1, n, f) == n && fclose(f) == 0);
    return config_path;
}
#define YAML(text) config(text, sizeof(text) - 1)

/* The message starts with the file's path, which is not known in advance. */
static void bad_config(const char *text, size_t n, const char *message, int line) {
    config(text, n);
    CHECK_INT(PARSE("--config", config_path), PVA_INPUT);
    char expected[600];
    snprintf(expected, sizeof expected, "%s%s", config_path, message);
    check_message(expected, line);
}
#define BAD_YAML(text, message) bad_config(text, sizeof(text) - 1, message, __LINE__)

static void test_defaults(void) {
    CHECK_OK(parse_words(0, NULL), err);
    CHECK(pva_options_text(o, "model") == NULL);
    CHECK_INT(pva_options_int(o, "seed"), 0);
    CHECK_INT(pva_options_flag(o, "verbose"), 0);
    CHECK_INT(pva_options_flag(o, "resume"), 1);
    CHECK_INT(pva_options_int(o, "batch-size"), 8);
    CHECK(pva_options_real(o, "temperature") == 0);
    CHECK_TEXT(pva_options_text(o, "dtype"), "bf16");
    CHECK_INT(pva_options_bytes(o, "gpu-memory"), INT64_C(30) << 30);
    const char *const *items;
    CHECK_INT(pva_options_list(o, "steer", &items), 0);
    CHECK_INT(pva_options_positional(o, &items), 0);
    CHECK_INT(pva_options_is_set(o, "batch-size"), 0);
    CHECK_INT(pva_options_is_set(o, "model"), 0);
    CHECK_INT(pva_options_wants_help(o), 0);
    CHECK_INT(pva_options_wants_config(o), 0);
    CHECK_INT(pva_options_require(o, "seed", &err), 0); /* a default is a value */
    CHECK_INT(pva_options_require(o, "model", &err), PVA_USAGE);
    CHECK_TEXT(err.msg, "--model is needed: the model directory (or PVA_MODEL in the environment, or \"model:\" in --config)");
}

static void test_command_line(void) {
    GOOD("run1", "--model", "dir a", "--batch-size=16", "-", "--verbose", "--no-resume", "--temperature=1e-1", "--shift", "-2.5",
         "--dtype", "f32", "--gpu-memory=512m", "--seed=-9223372036854775808", "--steer", "layer=1",
         "--steer=layer=2,vector=a.npy", "--show-config", "--", "--model", "-x");
    CHECK_TEXT(pva_options_text(o, "model"), "dir a");
    CHECK_INT(pva_options_int(o, "batch-size"), 16);
    CHECK_INT(pva_options_flag(o, "verbose"), 1);
    CHECK_INT(pva_options_flag(o, "resume"), 0);
    CHECK(pva_options_real(o, "temperature") == 0.1);
    CHECK(pva_options_real(o, "shift") == -2.5);
    CHECK_TEXT(pva_options_text(o, "dtype"), "f32");
    CHECK_INT(pva_options_bytes(o, "gpu-memory"), 512 << 20);
    CHECK_INT(pva_options_int(o, "seed"), INT64_MIN);
    CHECK_INT(pva_options_wants_config(o), 1);
    CHECK_INT(pva_options_is_set(o, "resume"), 1);
    CHECK_INT(pva_options_require(o, "model", &err), 0);
    const char *const *items;
    CHECK_INT(pva_options_list(o, "steer", &items), 2);
    CHECK_TEXT(items[0], "layer=1");
    CHECK_TEXT(items[1], "layer=2,vector=a.npy");
    CHECK_INT(pva_options_positional(o, &items), 4);
    CHECK_TEXT(items[0], "run1");
    CHECK_TEXT(items[1], "-");
    CHECK_TEXT(items[2], "--model");
    CHECK_TEXT(items[3], "-x");

    GOOD("--batch-size=1", "--batch-size=2", "--verbose", "--no-verbose", "--model="); /* the last one wins */
    CHECK_INT(pva_options_int(o, "batch-size"), 2);
    CHECK_INT(pva_options_flag(o, "verbose"), 0);
    CHECK_TEXT(pva_options_text(o, "model"), "");
    GOOD("--model=--dtype");
    CHECK_TEXT(pva_options_text(o, "model"), "--dtype");
    GOOD("--model=a=b");
    CHECK_TEXT(pva_options_text(o, "model"), "a=b");
}

static void test_refusals(void) {
    BAD("unknown option --modle; did you mean --model?", "--modle", "x");
    BAD("unknown option --mod; did you mean --model?", "--mod=x");
    BAD("unknown option -model; did you mean --model?", "-model", "x");
    BAD("unknown option --batchsize; did you mean --batch-size?", "--batchsize=3");
    BAD("unknown option --Model; did you mean --model?", "--Model=x");
    BAD("unknown option --hepl; did you mean --help?", "--hepl");
    BAD("unknown option --show-conf; did you mean --show-config?", "--show-conf");
    BAD("unknown option --no-verbos; did you mean --verbose?", "--no-verbos");
    BAD("unknown option --frequency; pva-mpi try --help lists what there is", "--frequency=3");
    BAD("unknown option --no-dtype; did you mean --dtype?", "--no-dtype");
    BAD("unknown option -n; pva-mpi try --help lists what there is", "-n", "3");
    BAD("--model needs a value", "--model");
    BAD("--config needs a value", "--config");
    BAD("--model needs a value, but --dtype follows; write --model=--dtype if it is the value", "--model", "--dtype", "f32");
    BAD("--verbose takes no value; --verbose or --no-verbose", "--verbose=yes");
    BAD("--no-verbose takes no value; --verbose or --no-verbose", "--no-verbose=yes");
    BAD("--show-config takes no value", "--show-config=1");
    BAD("--model: expected UTF-8 text, got other bytes", "--model=\xff");
    BAD("--steer: expected UTF-8 text, got other bytes", "--steer", "\xed\xa0\x80");

    char name[400];
    memset(name, 'x', sizeof name);
    memcpy(name, "--", 2);
    name[sizeof name - 1] = 0;
    CHECK_INT(PARSE(name), PVA_USAGE);
    CHECK_HAS(err.msg, "unknown option --xxx");
}

static void test_numbers(void) {
    static const char *const not_whole[] = {"",
                                            " 4",
                                            "4 ",
                                            "4x",
                                            "0x10",
                                            "1e3",
                                            "4.0",
                                            "+-4",
                                            "nan",
                                            "inf",
                                            "-",
                                            "9223372036854775808",
                                            "-9223372036854775809",
                                            "99999999999999999999999"};
    char word[64], message[128];
    for (size_t i = 0; i < sizeof not_whole / sizeof *not_whole; i++) {
        snprintf(word, sizeof word, "--seed=%s", not_whole[i]);
        snprintf(message, sizeof message, "--seed: expected a whole number, got \"%s\"", not_whole[i]);
        BAD(message, word);
    }
    BAD("--batch-size: expected a whole number from 1 to 4096, got 0", "--batch-size=0");
    BAD("--batch-size: expected a whole number from 1 to 4096, got 4097", "--batch-size=4097");
    BAD("--batch-size: expected a whole number from 1 to 4096, got \"ten\"", "--batch-size=ten");
    BAD("--threads: expected a whole number of at least 1, got 0", "--threads=0");
    GOOD("--batch-size=1", "--threads=9223372036854775807", "--seed=+7");
    CHECK_INT(pva_options_int(o, "batch-size"), 1);
    CHECK_INT(pva_options_int(o, "threads"), INT64_MAX);
    CHECK_INT(pva_options_int(o, "seed"), 7);
    GOOD("--batch-size=4096");

    static const char *const not_real[] = {"",    " 1",   "1 ",       "1e",    "1e999", "-1e999", "nan",
                                           "inf", "-inf", "infinity", "0x1p3", ".",     "1,5",    "--1"};
    for (size_t i = 0; i < sizeof not_real / sizeof *not_real; i++) {
        snprintf(word, sizeof word, "--shift=%s", not_real[i]);
        snprintf(message, sizeof message, "--shift: expected a number, got \"%s\"", not_real[i]);
        BAD(message, word);
    }
    BAD("--temperature: expected a number from 0 to 2, got 2.1", "--temperature=2.1");
    BAD("--temperature: expected a number from 0 to 2, got -1e-300", "--temperature=-1e-300");
    GOOD("--shift=.5e1", "--temperature=2");
    CHECK(pva_options_real(o, "shift") == 5);
    GOOD("--shift=-1e-320"); /* tiny is not out of range */
    CHECK(pva_options_real(o, "shift") < 0);

    BAD("--dtype: expected one of f32|bf16, got \"f16\"", "--dtype=f16");
    BAD("--dtype: expected one of f32|bf16, got \"f32|bf16\"", "--dtype=f32|bf16");
    BAD("--dtype: expected one of f32|bf16, got \"\"", "--dtype=");
    BAD("--dtype: expected one of f32|bf16, got \"bf1\"", "--dtype=bf1");
    BAD("--gpu-memory: expected a size in bytes such as 100000, 512M or 30G (K, M, G, T: powers of 1024), got \"30GB\"",
        "--gpu-memory=30GB");
}

static void test_bytes(void) {
    static const struct {
        const char *text;
        size_t expected;
    } good[] = {{"0", 0},
                {"100000", 100000},
                {"1K", 1024},
                {"512M", 512u << 20},
                {"30G", (size_t)30 << 30},
                {"2t", (size_t)2 << 40},
                {"18446744073709551615", SIZE_MAX},
                {"16777215T", (size_t)16777215 << 40}};
    static const char *const bad[] = {"",          "G",
                                      "-1",        "+1",
                                      " 1",        "1 G",
                                      "1.5G",      "1GiB",
                                      "1P",        "0x10",
                                      "1e9",       "18446744073709551616",
                                      "16777216T", "99999999999999999999K"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        size_t bytes = 1234;
        memset(&err, 0, sizeof err);
        CHECK_OK(pva_parse_bytes(good[i].text, &bytes, &err), err);
        CHECK(bytes == good[i].expected);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t bytes = 1234;
        memset(&err, 0, sizeof err);
        CHECK_INT(pva_parse_bytes(bad[i], &bytes, &err), PVA_USAGE);
        CHECK_INT(bytes, 1234);
        CHECK_HAS(err.msg, bad[i]);
    }
}

static void test_set(void) {
    static const struct {
        const char *text, *expected;
    } good[] = {{"all", "11111111"}, {"3", "00010000"}, {"0-2,5,7-7", "11100101"}, {"7,0", "10000001"}, {"1,1-2,2", "01100000"}};
    static const char *const bad[] = {"",
                                      ",",
                                      "1,",
                                      ",1",
                                      "8",
                                      "0-8",
                                      "3-2",
                                      "-1",
                                      "1-",
                                      "1--2",
                                      " 1",
                                      "1 ",
                                      "a",
                                      "all,1",
                                      "99999999999999999999",
                                      "1-99999999999999999999",
                                      "ALL"};
    unsigned char marks[10];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        memset(marks, 9, sizeof marks);
        memset(&err, 0, sizeof err);
        CHECK_OK(pva_parse_set(good[i].text, 8, marks + 1, &err), err);
        for (int k = 0; k < 8; k++) CHECK_INT(marks[k + 1], good[i].expected[k] - '0');
        CHECK(marks[0] == 9 && marks[9] == 9);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(marks, 9, sizeof marks);
        memset(&err, 0, sizeof err);
        CHECK_INT(pva_parse_set(bad[i], 8, marks + 1, &err), PVA_USAGE);
        CHECK_HAS(err.msg, "0 to 7");
        for (int k = 0; k < 8; k++) CHECK_INT(marks[k + 1], 0);
        CHECK(marks[0] == 9 && marks[9] == 9);
    }
}

static void test_config_file(void) {
    GOOD("--config",
         YAML("# a comment\nmodel: \"no\"\nbatch-size: 32\nverbose: Yes\nresume: off\ntemperature: 0.5\ndtype: 'f32'\n"
              "gpu-memory: 4G\nsteer:\n  - layer=1,latent=3\n  - \"layer=2\"\n"));
    CHECK_TEXT(pva_options_text(o, "model"), "no");
    CHECK_INT(pva_options_int(o, "batch-size"), 32);
    CHECK_INT(pva_options_flag(o, "verbose"), 1);
    CHECK_INT(pva_options_flag(o, "resume"), 0);
    CHECK(pva_options_real(o, "temperature") == 0.5);
    CHECK_TEXT(pva_options_text(o, "dtype"), "f32");
    CHECK_INT(pva_options_bytes(o, "gpu-memory"), INT64_C(4) << 30);
    CHECK_INT(pva_options_is_set(o, "batch-size"), 1);
    const char *const *items;
    CHECK_INT(pva_options_list(o, "steer", &items), 2);
    CHECK_TEXT(items[0], "layer=1,latent=3");
    CHECK_TEXT(items[1], "layer=2");

    GOOD("--config", YAML("steer: one\nmodel: 12\n")); /* one scalar is a list of one; a number is text where text is asked for */
    CHECK_INT(pva_options_list(o, "steer", &items), 1);
    CHECK_TEXT(pva_options_text(o, "model"), "12");
    GOOD("--config", YAML("steer: []\nmodel: \"null\"\n"));
    CHECK_INT(pva_options_list(o, "steer", &items), 0);
    CHECK_INT(pva_options_is_set(o, "steer"), 1);
    CHECK_TEXT(pva_options_text(o, "model"), "null");
    GOOD("--config", YAML(""));
    GOOD("--config", YAML("# nothing\n"));
    GOOD("--config", YAML("---\n...\n"));
    GOOD("--config", YAML("{}"));
    GOOD("--config", YAML("{batch-size: 3, steer: [a, b]}"));
    CHECK_INT(pva_options_list(o, "steer", &items), 2);
    GOOD("--config", YAML("\xef\xbb\xbf"
                          "batch-size: 3\r\nseed: 4\r\n")); /* as some editors save it */
    CHECK_INT(pva_options_int(o, "seed"), 4);
    GOOD("--config=/nowhere/at/all", "--config", YAML("seed: 5\n")); /* the last one wins, here too */
    CHECK_INT(pva_options_int(o, "seed"), 5);
}

static void test_config_refusals(void) {
    BAD_YAML("seed: 1\nmodle: x\n", ":2: pva-mpi try has no option \"modle\"; did you mean \"model\"?");
    BAD_YAML("batch_size: 3\n", ":1: pva-mpi try has no option \"batch_size\"; did you mean \"batch-size\"?");
    BAD_YAML("frequency: 3\n", ":1: pva-mpi try has no option \"frequency\"");
    BAD_YAML("config: other.yaml\n", ":1: pva-mpi try has no option \"config\"");
    BAD_YAML("help: yes\n", ":1: pva-mpi try has no option \"help\"");
    BAD_YAML("no-verbose: yes\n", ":1: pva-mpi try has no option \"no-verbose\"; did you mean \"verbose\"?");
    BAD_YAML("seed: 1\nmodel: a\n\nseed: 2\n", ":4: seed is already set in line 1");
    BAD_YAML("seed: 1\nbatch-size: 5000\n", ":2: batch-size: expected a whole number from 1 to 4096, got 5000");
    BAD_YAML("verbose: maybe\n", ":1: verbose: expected yes or no, got \"maybe\"");
    BAD_YAML("dtype: f16\n", ":1: dtype: expected one of f32|bf16, got \"f16\"");
    BAD_YAML("model: [a, b]\n", ":1: model takes one value, not a list");
    BAD_YAML("model:\n  a: b\n", ":2: model: a mapping or a list stands where one value is expected");
    BAD_YAML("steer:\n  - [a]\n", ":2: steer: a mapping or a list stands where one value is expected");
    BAD_YAML("steer:\n  - a\n  - b: c\n", ":3: steer: a mapping or a list stands where one value is expected");
    BAD_YAML("model:\n", ":1: model: there is no value; remove the line to leave the option unset");
    BAD_YAML("model: ~\n", ":1: model: there is no value; remove the line to leave the option unset");
    BAD_YAML("steer: null\n", ":1: steer: there is no value; remove the line to leave the option unset");
    BAD_YAML("model: !!str 12\n", ":1: model: a tag stands before the value; values need none");
    BAD_YAML("model: &a x\nsteer: *a\n", ":2: steer: an alias stands where a value is expected; write the value out");
    BAD_YAML("model: \"a\\0b\"\n", ":1: model: the value holds a zero byte");
    BAD_YAML("[a, b]: c\n", ":1: the name of an option is expected");
    BAD_YAML("? *a\n: c\n", ":1: the name of an option is expected");
    BAD_YAML("- a\n- b\n", ":1: expected lines of the form \"option: value\"");
    BAD_YAML("just a sentence\n", ":1: expected lines of the form \"option: value\"");
    BAD_YAML("seed: 1\n---\nseed: 2\n", ":2: a second document starts here; one is expected");

    static const struct {
        const char *text;
        size_t n;
        int line;
    } broken[] = {{"seed: 1\nmodel: \"open\n", 21, 3}, {"seed: 1\n\tmodel: x\n", 18, 2},   {"model: b: c\n", 12, 1},
                  {"seed: 1\nsteer: [\n", 17, 3},      {"seed: 1\nmodel: a\x01\n", 18, 2}, {"seed: 1\nmodel: \xff\xfe\n", 18, 2},
                  {"seed: 1\n\nmodel: \xc3\n", 18, 3}, {"seed: 1\nmodel: a\0b\n", 19, 2},  {"%YAML 9.9\n---\nseed: 1\n", 22, 1}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        config(broken[i].text, broken[i].n);
        CHECK_INT(PARSE("--config", config_path), PVA_INPUT);
        char expected[128];
        snprintf(expected, sizeof expected, "%s:%d: not valid YAML: ", config_path, broken[i].line);
        CHECK_HAS(err.msg, expected);
    }

    CHECK_INT(PARSE("--config", "/nowhere/at/all.yaml"), PVA_INPUT);
    CHECK_TEXT(err.msg, "--config /nowhere/at/all.yaml: No such file or directory");
    CHECK_INT(PARSE("--config", directory), PVA_INPUT);
    CHECK_HAS(err.msg, "Is a directory");
    char *large = malloc((1 << 20) + 1);
    CHECK_FATAL(large);
    memset(large, '#', (1 << 20) + 1);
    config(large, 1 << 20);
    CHECK_OK(PARSE("--config", config_path), err);
    config(large, (1 << 20) + 1);
    CHECK_INT(PARSE("--config", config_path), PVA_INPUT);
    CHECK_HAS(err.msg, "larger than 1 MiB");
    memset(large, '[', 1 << 20); /* nesting must not be followed down */
    config(large, 1 << 20);
    CHECK_INT(PARSE("--config", config_path), PVA_INPUT);
    free(large);
}

static void test_precedence(void) {
    YAML("seed: 1\nbatch-size: 11\ntemperature: 0.25\nsteer: [from, file]\nmodel: file\n");
    setenv("PVA_CONFIG", config_path, 1);
    setenv("PVA_BATCH_SIZE", "12", 1);
    setenv("PVA_TEMPERATURE", "0.5", 1);
    setenv("PVA_STEER", "from,environment", 1);
    setenv("PVA_VERBOSE", "1", 1);
    setenv("PVA_MODEL", "", 1); /* empty: as if it were not set */
    GOOD("--temperature=0.75");
    CHECK_INT(pva_options_int(o, "seed"), 1);
    CHECK_INT(pva_options_int(o, "batch-size"), 12);
    CHECK(pva_options_real(o, "temperature") == 0.75);
    CHECK_INT(pva_options_flag(o, "verbose"), 1);
    CHECK_TEXT(pva_options_text(o, "model"), "file");
    CHECK_TEXT(pva_options_text(o, "dtype"), "bf16");
    const char *const *items;
    CHECK_INT(pva_options_list(o, "steer", &items), 1); /* a higher source replaces a list */
    CHECK_TEXT(items[0], "from,environment");
    GOOD("--no-verbose", "--steer=a", "--steer=b", "--seed=3");
    CHECK_INT(pva_options_flag(o, "verbose"), 0);
    CHECK_INT(pva_options_int(o, "seed"), 3);
    CHECK_INT(pva_options_list(o, "steer", &items), 2);
    CHECK_TEXT(items[1], "b");

    /* What is overridden must be right all the same. */
    setenv("PVA_BATCH_SIZE", "many", 1);
    BAD("PVA_BATCH_SIZE: expected a whole number from 1 to 4096, got \"many\"", "--batch-size=3");
    setenv("PVA_BATCH_SIZE", "12", 1);
    setenv("PVA_VERBOSE", "loud", 1);
    BAD("PVA_VERBOSE: expected yes or no, got \"loud\"", "--verbose");
    unsetenv("PVA_VERBOSE");
    BAD_YAML("batch-size: many\n", ":1: batch-size: expected a whole number from 1 to 4096, got \"many\"");

    CHECK_INT(PARSE("--config=/nowhere/a.yaml"), PVA_INPUT); /* --config wins over PVA_CONFIG */
    setenv("PVA_CONFIG", "/nowhere/b.yaml", 1);
    CHECK_INT(PARSE("--seed=1"), PVA_INPUT);
    CHECK_HAS(err.msg, "/nowhere/b.yaml");
    unsetenv("PVA_CONFIG");
    unsetenv("PVA_BATCH_SIZE");
    unsetenv("PVA_TEMPERATURE");
    unsetenv("PVA_STEER");
    unsetenv("PVA_MODEL");
}

static char *read_all(const char *path) {
    static char text[8192];
    FILE *f = fopen(path, "rb");
    CHECK_FATAL(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void test_unread_variables(void) {
    char path[64];
    snprintf(path, sizeof path, "%s/log", directory);
    CHECK_OK(pva_log_file(path, 0, &err), err);
    setenv("PVA_MODLE", "x", 1);
    setenv("PVA_GRADE_JOBS", "4", 1);
    setenv("PVA_MPI", "x", 1);
    setenv("PVA_TEST_SOURCE", "x", 1);
    setenv("PVAX", "x", 1);
    GOOD("--seed=1");
    unsetenv("PVA_MODLE");
    unsetenv("PVA_GRADE_JOBS");
    unsetenv("PVA_MPI");
    unsetenv("PVA_TEST_SOURCE");
    unsetenv("PVAX");
    CHECK_OK(pva_log_file(NULL, 0, &err), err);
    char *log = read_all(path);
    CHECK_HAS(log, "warning rank 0: pva-mpi try: the environment sets PVA_MODLE, which is no option of this command; did you "
                   "mean PVA_MODEL?\n");
    CHECK_HAS(log, "warning rank 0: pva-mpi try: the environment sets PVA_GRADE_JOBS, which is no option of this command\n");
    int lines = 0;
    for (char *p = log; *p; p++) lines += *p == '\n';
    CHECK_INT(lines, 2);
}

static void print_config(const char *path) {
    FILE *f = fopen(path, "wb");
    CHECK_FATAL(f);
    pva_options_print_config(o, f);
    CHECK(!ferror(f) && fclose(f) == 0);
}

static void test_show_config(void) {
    char first[64], *text;
    snprintf(first, sizeof first, "%s/first.yaml", directory);
    GOOD("--model=a b", "--steer=x", "--steer=", "--no-resume", "--gpu-memory=3G", "--temperature=0.10");
    print_config(first);
    text = read_all(first);
    CHECK_TEXT(
        text,
        "# pva-mpi try\n# verbose: unset\n# shift: unset\n# threads: unset\nmodel: \"a b\"\nseed: 0\nresume: no\nbatch-size: 8\n"
        "temperature: 0.10\ndtype: \"bf16\"\ngpu-memory: 3G\nsteer:\n- \"x\"\n- \"\"\n");

    /* Texts that YAML could misread come back unchanged, and so does everything else. */
    static const char *const awkward[] = {"",
                                          " ",
                                          "no",
                                          "12",
                                          "null",
                                          "~",
                                          "a: b",
                                          "# c",
                                          "- d",
                                          "'q'",
                                          "\"q\"",
                                          "\\n",
                                          "line\nbreak\n",
                                          "tab\t",
                                          "trailing ",
                                          "\r",
                                          "\xc3\xa9t\xc3\xa9",
                                          "\xe2\x80\xa8",
                                          "\xc2\x85",
                                          "\xef\xbb\xbf",
                                          "\xef\xbf\xbf",
                                          "\xf0\x9f\x98\x80",
                                          "\x01\x1f\x7f",
                                          "{a}",
                                          "[b]",
                                          "*x",
                                          "&x",
                                          "!x",
                                          "%x",
                                          "@x",
                                          "`x",
                                          "? x",
                                          "|",
                                          ">",
                                          "---",
                                          "...",
                                          "a very long text with many words that an emitter with a line width would fold over "
                                          "several lines, perhaps even in the middle of   spaces"};
    for (size_t i = 0; i < sizeof awkward / sizeof *awkward; i++) {
        char word[300], item[300], mine[300];
        snprintf(mine, sizeof mine, "%s", awkward[i]);
        snprintf(word, sizeof word, "--model=%s", awkward[i]);
        snprintf(item, sizeof item, "--steer=%s", awkward[i]);
        GOOD(word, item, "--steer=second", "--seed=-5", "--shift=1e-7");
        print_config(first);
        GOOD("--config", first);
        CHECK_TEXT(pva_options_text(o, "model"), mine);
        const char *const *items;
        CHECK_INT(pva_options_list(o, "steer", &items), 2);
        CHECK_TEXT(items[0], mine);
        CHECK_INT(pva_options_int(o, "seed"), -5);
        CHECK(pva_options_real(o, "shift") == 1e-7);
        CHECK(pva_options_text(o, "threads") == NULL);
    }

    GOOD("--config", YAML("steer: []\n")); /* an emptied list stays emptied */
    print_config(first);
    GOOD("--config", first);
    CHECK_INT(pva_options_is_set(o, "steer"), 1);
}

static void test_help(void) {
    /* Help comes whatever else is wrong. */
    setenv("PVA_BATCH_SIZE", "many", 1);
    GOOD("--modle", "x", "--help");
    CHECK_INT(pva_options_wants_help(o), 1);
    GOOD("-h");
    CHECK_INT(pva_options_wants_help(o), 1);
    unsetenv("PVA_BATCH_SIZE");
    GOOD("--", "--help");
    CHECK_INT(pva_options_wants_help(o), 0);

    char path[64];
    snprintf(path, sizeof path, "%s/help", directory);
    FILE *f = fopen(path, "wb");
    CHECK_FATAL(f);
    pva_options_print_help("pva-mpi try", "--model DIR [options]\nTries things.", tables, f);
    fclose(f);
    char *text = read_all(path);
    CHECK(
        text ==
        strstr(text,
               "Usage: pva-mpi try --model DIR [options]\nTries things.\n\n  --model DIR                 the model directory\n"));
    CHECK_HAS(text, "\n  --[no-]resume               go on where it stopped [default: yes]\n");
    CHECK_HAS(text, "\n  --dtype f32|bf16            operand type [default: bf16]\n");
    CHECK_HAS(text, "\n  --steer SPEC                a direction to add (may be given several times)\n");
    CHECK_HAS(text, "\n  --config FILE ");
    CHECK_HAS(text, "\n  --show-config ");
    CHECK_HAS(text, "\n  --help ");
    for (char *line = text; *line; line = strchr(line, '\n') + 1) CHECK(strchr(line, '\n') - line <= 80);

    static const struct pva_option wordy[] = {
        {"a-rather-long-name-for-an-option", PVA_OPT_CHOICE, "KIND", "one",
         "this help is long enough to go over the end of its line, and wraps", "one|two", 0, 0},
        {NULL, PVA_OPT_TEXT, NULL, NULL, NULL, NULL, 0, 0},
    };
    static const struct pva_option *const wordy_tables[] = {wordy, NULL};
    f = fopen(path, "wb");
    CHECK_FATAL(f);
    pva_options_print_help("x", "y", wordy_tables, f);
    fclose(f);
    CHECK_HAS(read_all(path), "  --a-rather-long-name-for-an-option KIND\n"
                              "                              this help is long enough to go over the end of its\n"
                              "                              line, and wraps (one|two) [default: one]\n");
}

enum bug { BUG_NONE, BUG_TWICE, BUG_RESERVED, BUG_FALLBACK, BUG_UNKNOWN, BUG_TYPE };

static void misuse(enum bug bug) {
    struct pva_option table[] = {
        {"one", PVA_OPT_INT, "N", "1", "h", NULL, 1, 2},
        {"two", PVA_OPT_TEXT, "X", NULL, "h", NULL, 0, 0},
        {NULL, PVA_OPT_TEXT, NULL, NULL, NULL, NULL, 0, 0},
    };
    const struct pva_option *const list[] = {table, NULL};
    if (bug == BUG_TWICE) table[1].name = "one";
    if (bug == BUG_RESERVED) table[1].name = "config";
    if (bug == BUG_FALLBACK) table[0].fallback = "3";
    char *argv[] = {"x"};
    struct pva_options *mine;
    if (pva_options_parse("x", list, 1, argv, &mine, &err)) _exit(1);
    if (bug == BUG_UNKNOWN) pva_options_text(mine, "three");
    if (bug == BUG_TYPE) pva_options_int(mine, "two");
    pva_options_free(&mine);
    _exit(0);
}

/* Mistakes in a table, or reads that the table does not allow, stop the program at once. */
static void test_bugs_abort(void) {
    for (enum bug bug = BUG_NONE; bug <= BUG_TYPE; bug++) {
        pid_t child = fork();
        CHECK_FATAL(child >= 0);
        if (child == 0) {
            CHECK_FATAL(freopen("/dev/null", "w", stderr));
            misuse(bug);
        }
        int status = 0;
        CHECK_INT(waitpid(child, &status, 0), child);
        if (bug == BUG_NONE) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        else CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
}

/* What an earlier command was given, whatever the environment says now. */
static void test_read_file(void) {
    struct pva_options *earlier = NULL;
    memset(&err, 0, sizeof err);
    setenv("PVA_SEED", "9", 1);
    CHECK_OK(pva_options_read_file("pva-mpi try", tables, YAML("model: here\nbatch-size: 3\n"), &earlier, &err), err);
    unsetenv("PVA_SEED");
    CHECK_FATAL(earlier != NULL);
    CHECK_TEXT(pva_options_text(earlier, "model"), "here");
    CHECK_INT(pva_options_int(earlier, "seed"), 0);
    CHECK_INT(pva_options_int(earlier, "batch-size"), 3);
    CHECK_OK(pva_options_set(earlier, "batch-size", "5", &err), err);
    CHECK_INT(pva_options_int(earlier, "batch-size"), 5);
    CHECK_OK(pva_options_set(earlier, "model", pva_options_text(earlier, "model"), &err), err); /* its own text */
    CHECK_TEXT(pva_options_text(earlier, "model"), "here");
    CHECK_INT(pva_options_set(earlier, "batch-size", "0", &err), PVA_USAGE);
    CHECK_TEXT(err.msg, "batch-size: expected a whole number from 1 to 4096, got 0");
    CHECK_INT(pva_options_int(earlier, "batch-size"), 5);
    pva_options_free(&earlier);
    memset(&err, 0, sizeof err);
    CHECK_INT(pva_options_read_file("pva-mpi try", tables, YAML("modle: here\n"), &earlier, &err), PVA_INPUT);
    CHECK(earlier == NULL);
}

int main(void) {
    /* The suite's own environment must not reach the options under test. */
    unsetenv("PVA_CONFIG");
    pva_log_screen(PVA_LOG_ERROR);
    CHECK_FATAL(mkdtemp(directory));
    snprintf(config_path, sizeof config_path, "%s/try.yaml", directory);
    test_defaults();
    test_command_line();
    test_refusals();
    test_numbers();
    test_bytes();
    test_set();
    test_config_file();
    test_config_refusals();
    test_precedence();
    test_unread_variables();
    test_show_config();
    test_help();
    test_read_file();
    test_bugs_abort();
    pva_options_free(&o);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK_INT(system(command), 0);
    return check_report("options");
}
