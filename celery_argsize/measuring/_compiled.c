/* The compiled twin of pure.py: measures a value in one walk, and counts it in shared memory.

   It touches exact built-in types only, so it runs no foreign code, and nothing changes under it. What it cannot judge
   it leaves to Python: walk() sets other leaves aside, count() gives up before it has changed anything.
   docs/measuring.md says what is summed up, docs/shared-memory.md how the counters lie in memory. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef int64_t i64;

#if PY_VERSION_HEX < 0x030c0000
#define IS_READY(text) PyUnicode_IS_READY(text) /* some C code may still make texts of an old kind */
#else
#define IS_READY(text) 1
#endif
#define INLINE static inline __attribute__((always_inline))

#define MAX_LEVELS 1000         /* deeper values have no size: json cannot write them either */
#define MAX_CHARS (512LL << 20) /* nor have longer ones: no broker takes them */
#define KEYS 64

/* -- the walk -- */

typedef struct {
    i64 plain;                     /* characters that JSON and repr have in common; what each has more: */
    i64 json, utf8, repr, escaped; /* in JSON; in its UTF-8; in the repr; in the repr as ASCII JSON */
    i64 commas, keys, containers, singles;
    PyObject *aside; /* a list: other leaves, each followed by its level; keys have level 0 */
    int levels;
    int heights;                   /* of the highest container so far */
    PyObject *usual_keys[KEYS];    /* texts with nothing special: most dicts in a value have the same keys */
    i64 at_height[MAX_LEVELS + 1]; /* containers by height; 0: holds no container */
} Walk;

/* What makes a text longer in JSON, in a repr, and in ASCII JSON. */
typedef struct {
    i64 length, json, quotes, deletes, wide1, wide2, wide3;
} Text;

/* Whether one of 8 characters is a quote, an apostrophe, a backslash, a control character, or over 0x7e. A borrow from
   a byte to the next only comes from such a character. */
INLINE uint64_t special8(uint64_t x) {
    const uint64_t each = 0x0101010101010101ULL;
    return (x | (x + each) | (x - each * 0x20) | ((x ^ each * '"') - each) | ((x ^ each * '\'') - each) |
            ((x ^ each * '\\') - each)) &
           each * 0x80;
}

/* Counts in one block of characters, short enough for the counters. The compiler makes vector code of it. */
#define SCAN(name, type, block)                                                       \
    static void name(const type *p, Py_ssize_t n, Text *t) {                          \
        for (; n > 0; p += block, n -= block) {                                       \
            Py_ssize_t size = n < block ? n : block;                                  \
            type control = 0, brief = 0, escaped = 0, quote = 0, del = 0;             \
            type wide1 = 0, wide2 = 0, wide3 = 0;                                     \
            for (Py_ssize_t i = 0; i < size; i++) {                                   \
                type c = p[i];                                                        \
                control += c < 0x20 ? 1 : 0;                                          \
                brief += c > 7 ? 1 : 0; /* \b \t \n \f \r, once more is subtracted */ \
                brief -= c > 13 ? 1 : 0;                                              \
                brief -= c == '\v' ? 1 : 0;                                           \
                escaped += c == '"' ? 1 : 0;                                          \
                escaped += c == '\\' ? 1 : 0;                                         \
                quote += c == '\'' ? 1 : 0;                                           \
                del += c == 0x7f ? 1 : 0;                                             \
                wide1 += c > 0x7f ? 1 : 0;                                            \
                wide2 += (int32_t)c > 0x7ff ? 1 : 0;                                  \
                wide3 += (int32_t)c > 0xffff ? 1 : 0;                                 \
            }                                                                         \
            t->json += escaped + 5 * (i64)control - 4 * (i64)brief;                   \
            t->quotes += quote;                                                       \
            t->deletes += del;                                                        \
            t->wide1 += wide1;                                                        \
            t->wide2 += wide2;                                                        \
            t->wide3 += wide3;                                                        \
        }                                                                             \
    }

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define CLONES __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define CLONES
#endif
/* clang-format off */
CLONES SCAN(scan1, uint8_t, 224)
CLONES SCAN(scan2, uint16_t, 4096)
CLONES SCAN(scan4, int32_t, 4096)
/* clang-format on */

/* Whether one of *n* characters, at least *size*, is special. Looks at *size* at once; the last ones may be seen twice.
   v + 1 is over 0x20, as a signed byte, but for control characters and those from 0x7f on. */
#define SPECIAL(name, size)                                                        \
    name(const uint8_t *p, Py_ssize_t n) {                                         \
        typedef int8_t vector __attribute__((vector_size(size)));                  \
        typedef uint8_t characters __attribute__((vector_size(size)));             \
        typedef uint64_t words __attribute__((vector_size(size)));                 \
        words usual = ~(words){0}, quotes = {0};                                   \
        uint64_t any = 0;                                                          \
        for (Py_ssize_t i = 0, last = n - size;; i += size) {                      \
            characters v;                                                          \
            memcpy(&v, p + (i < last ? i : last), size);                           \
            usual &= (words)((vector)(v + 1) > 0x20);                              \
            quotes |= (words)(v == '"') | (words)(v == '\'') | (words)(v == '\\'); \
            if (i >= last)                                                         \
                break;                                                             \
        }                                                                          \
        for (int i = 0; i < size / 8; i++)                                         \
            any |= ~usual[i] | quotes[i];                                          \
        return any != 0;                                                           \
    }
/* clang-format off */
INLINE int SPECIAL(special16, 16)
static int SPECIAL(special_any, 16)
#ifdef __x86_64__
__attribute__((target("avx2"))) static int SPECIAL(special_avx2, 32)
#endif
static int (*special_long)(const uint8_t *, Py_ssize_t) = special_any;
/* clang-format on */

INLINE int is_special(const uint8_t *p, Py_ssize_t n) {
    uint64_t a, b;
    uint32_t first, last;
    if (n >= 64)
        return special_long(p, n);
    if (n >= 16)
        return special16(p, n);
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
        return (special8(a) | special8(b)) != 0;
    }
    if (n >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        return special8(first | (uint64_t)last << 32) != 0;
    }
    a = n ? p[0] | (uint64_t)p[n / 2] << 8 | (uint64_t)p[n - 1] << 16 : 0;
    return special8(a | 0x6161616161000000ULL | (n ? 0 : 0x616161)) != 0;
}

static inline Text read_text(PyObject *text) {
    Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    Text t = {.length = n};
    switch (PyUnicode_KIND(text)) {
    case PyUnicode_1BYTE_KIND:
        for (Py_ssize_t i = 0, size; i < n; i += size) {
            const uint8_t *p = PyUnicode_1BYTE_DATA(text) + i;
            size = n - i < 4096 ? n - i : 4096;
            if (is_special(p, size))
                scan1(p, size, &t);
        }
        break;
    case PyUnicode_2BYTE_KIND:
        scan2(PyUnicode_2BYTE_DATA(text), n, &t);
        break;
    default:
        scan4((const int32_t *)PyUnicode_4BYTE_DATA(text), n, &t);
    }
    return t;
}

static inline i64 utf8(const Text *t) {
    return t->length + t->wide1 + t->wide2 + t->wide3;
}

/* Its length in ASCII JSON, without quotes: an escape has 6 characters, beyond the basic plane 12. */
static inline i64 ascii(const Text *t) {
    return t->length + t->json + 5 * (t->deletes + t->wide1) + 6 * t->wide3;
}

/* Adds a text. Returns 0 if nothing in it is special. */
INLINE int add_text(Walk *w, PyObject *text) {
    Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    w->plain += n + 2;
    if (n < 4096 && PyUnicode_IS_COMPACT_ASCII(text) && !is_special((uint8_t *)((PyASCIIObject *)text + 1), n))
        return 0;
    Text t = read_text(text);
    w->json += t.json;
    w->utf8 += utf8(&t) - n;
    w->repr += t.quotes; /* saferepr escapes apostrophes only */
    w->escaped += ascii(&t) - n + 2 * t.quotes;
    return 1;
}

/* Adds ASCII text without quotes: *length* characters in a repr, *more* in JSON. */
INLINE void add_plain(Walk *w, i64 length, i64 more) {
    w->plain += length;
    w->json += more;
}

static inline int digits(uint64_t n) {
/* clang-format off */
    static const uint64_t powers[] = {
        0, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL, 1000000000ULL,
        10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL, 100000000000000ULL,
        1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL, 1000000000000000000ULL,
        10000000000000000000ULL,
    };
    /* clang-format on */
    int guess = (64 - __builtin_clzll(n | 1)) * 1233 >> 12; /* 1233 / 4096 is about log10(2) */
    return guess + (n >= powers[guess]);
}

/* Characters of an int; 0: it has more than 64 bits. */
static int int_length(PyObject *number) {
    int overflow;
#if PY_VERSION_HEX < 0x030c0000 /* most have one digit in base 2**30 */
    if (Py_SIZE(number) == 1)
        return digits(((PyLongObject *)number)->ob_digit[0]);
#endif
    long long n = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow)
        return 0;
    return n < 0 ? 1 + digits(-(uint64_t)n) : digits((uint64_t)n);
}

/* Characters of a finite float's repr; 0: an error. If v is a whole number of 10**-k for some k up to 4, its repr has
   the smallest such k decimals: below 1e11 these are no more than the 15 digits that a float keeps. */
static int float_length(double v) {
    double size = v < 0 ? -v : v, scale = 1;
    if (size < 1e11 && (size >= 1e-4 || size == 0)) {
        for (int k = 0; k <= 4; k++, scale *= 10) {
            double scaled = size * scale, whole = (double)(i64)(scaled + 0.5);
            if (fabs(scaled - whole) <= scaled * 1e-15 && whole / scale == size) /* a division takes long */
                return (signbit(v) != 0) + digits((uint64_t)(i64)size) + 1 + (k ? k : 1);
        }
    }
    char *text = PyOS_double_to_string(v, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (text == NULL)
        return 0;
    int length = (int)strlen(text);
    PyMem_Free(text);
    return length;
}

/* Adds a leaf. *quotes*: 2 for a key, which JSON writes as a text. Returns 0 for other types, -1 without memory. */
static int add_leaf(Walk *w, PyObject *leaf, int quotes) {
    if (PyUnicode_CheckExact(leaf)) {
        if (!IS_READY(leaf))
            return 0;
        add_text(w, leaf);
    } else if (PyLong_CheckExact(leaf)) {
        int length = int_length(leaf);
        if (!length)
            return 0;
        add_plain(w, length, quotes);
    } else if (leaf == Py_None) {
        add_plain(w, 4, quotes);
    } else if (leaf == Py_True) {
        add_plain(w, 4, quotes);
    } else if (leaf == Py_False) {
        add_plain(w, 5, quotes);
    } else if (PyFloat_CheckExact(leaf)) {
        double v = PyFloat_AS_DOUBLE(leaf);
        if (Py_IS_NAN(v)) {
            add_plain(w, 3, quotes);
        } else if (Py_IS_INFINITY(v)) { /* Infinity, inf */
            add_plain(w, 3 + (v < 0), 5 + quotes);
        } else {
            int length = float_length(v);
            if (!length)
                return -1;
            add_plain(w, length, quotes);
        }
    } else {
        return 0;
    }
    return 1;
}

static int set_aside(Walk *w, PyObject *leaf, int level) {
    PyObject *number = PyLong_FromLong(level);
    if (number == NULL || PyList_Append(w->aside, leaf) < 0 || PyList_Append(w->aside, number) < 0) {
        Py_XDECREF(number);
        return -1;
    }
    Py_DECREF(number);
    return 0;
}

/* Adds a key. Returns 0 for an error. */
INLINE int add_key(Walk *w, PyObject *key) {
    PyObject **usual = &w->usual_keys[(uintptr_t)key / 16 % KEYS];
    if (*usual == key) {
        w->plain += PyUnicode_GET_LENGTH(key) + 2;
        return 1;
    }
    if (PyUnicode_CheckExact(key) && IS_READY(key)) {
        if (!add_text(w, key))
            *usual = key;
        return 1;
    }
    int known = add_leaf(w, key, 2);
    return known > 0 || (!known && set_aside(w, key, 0) == 0);
}

static int walk(Walk *w, PyObject *value, int level);

/* Adds a leaf or container at *level*. Returns its height, 0 for a leaf; -1: given up, or an error. */
static inline int add_member(Walk *w, PyObject *member, int level) {
    int known = add_leaf(w, member, 0);
    if (known)
        return known < 0 ? -1 : 0;
    if (PyDict_CheckExact(member) || PyList_CheckExact(member) || PyTuple_CheckExact(member))
        return walk(w, member, level);
    return set_aside(w, member, level);
}

/* Adds a container. Returns 1 for one that holds no container, 2 for one that holds these, and so on. */
static int walk(Walk *w, PyObject *value, int level) {
    int height = 0;
    Py_ssize_t count;
    if (level > MAX_LEVELS)
        return -1;
    if (level > w->levels)
        w->levels = level;
    if (PyDict_CheckExact(value)) {
        PyObject *key, *member;
        Py_ssize_t position = 0;
        count = PyDict_GET_SIZE(value);
        while (PyDict_Next(value, &position, &key, &member)) {
            if (!add_key(w, key))
                return -1;
            int inner = add_member(w, member, level + 1);
            if (inner < 0 || w->plain > MAX_CHARS)
                return -1;
            height = inner > height ? inner : height;
        }
        w->keys += count;
        add_plain(w, 2 * count, -count); /* colons, followed by a blank in a repr */
    } else {
        int is_tuple = PyTuple_CheckExact(value);
        count = is_tuple ? PyTuple_GET_SIZE(value) : PyList_GET_SIZE(value);
        PyObject **members = is_tuple ? ((PyTupleObject *)value)->ob_item : ((PyListObject *)value)->ob_item;
        for (Py_ssize_t i = 0; i < count; i++) {
            int inner = add_member(w, members[i], level + 1);
            if (inner < 0 || w->plain > MAX_CHARS)
                return -1;
            height = inner > height ? inner : height;
        }
        if (count == 1 && is_tuple)
            add_plain(w, 1, -1); /* (1,) */
        w->singles += count == 1 && !is_tuple;
    }
    i64 commas = count ? count - 1 : 0;
    w->commas += commas;
    add_plain(w, 2 + 2 * commas, -commas);
    w->containers++;
    while (w->heights <= height)
        w->at_height[w->heights++] = 0;
    w->at_height[height]++;
    return height + 1;
}

static void begin(Walk *w, PyObject *aside) {
    memset(w, 0, offsetof(Walk, at_height));
    w->aside = aside;
}

/* Steps that saferepr adds for containers opened before: see Shape.chain_steps. */
static i64 chain_steps(const Walk *w) {
    double steps = 0, below = 0;
    for (int height = 0; height < w->heights; height++) {
        double count = (double)w->at_height[height];
        below += count;
        steps += count / (height + 1 < w->heights ? (double)w->at_height[height + 1] : 1.0) * below;
    }
    return steps < 1099511627776.0 ? (i64)nearbyint(steps) : 1LL << 40; /* sums stay within 64 bits */
}

static PyObject *numbers(const i64 *values, Py_ssize_t count) {
    PyObject *result = PyTuple_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *number = PyLong_FromLongLong(values[i]);
        if (number == NULL)
            Py_CLEAR(result);
        else
            PyTuple_SET_ITEM(result, i, number);
    }
    return result;
}

static PyObject *walk_py(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2 || !PyList_CheckExact(args[1]))
        return PyErr_Format(PyExc_TypeError, "walk(value, aside: list)");
    Walk w;
    begin(&w, args[1]);
    if (add_member(&w, args[0], 1) < 0)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    i64 chars = w.plain + w.json;
    if (chars > MAX_CHARS)
        Py_RETURN_NONE;
    const i64 figures[] = {chars,    chars + w.utf8, w.plain + w.repr, w.plain + w.escaped, w.levels,
                           w.commas, w.keys,         w.containers,     chain_steps(&w),     w.singles};
    return numbers(figures, sizeof(figures) / sizeof(i64));
}

/* -- headers: the argsrepr or kwargsrepr of a message -- */

#define MAX_HEADER (4 << 20)
#define DEFAULT_LIMIT 1024
#define DEFAULT_LEVELS 3

typedef struct {
    i64 chars, bytes, header, levels, need, sums[8];
    int is_cut;
} Part;

static PyObject *dots, *comma_dots; /* "...", ", ..." */

static Py_UCS4 char_at(PyObject *text, Py_ssize_t i) {
    return i < 0 ? 0 : PyUnicode_READ_CHAR(text, i);
}

/* Whether the repr of *member* may begin with *c*. */
static int may_begin(PyObject *member, Py_UCS4 c) {
    int is_digit = (c >= '0' && c <= '9') || c == '-';
    if (PyUnicode_CheckExact(member))
        return c == '\'';
    if (PyLong_CheckExact(member))
        return is_digit;
    if (PyFloat_CheckExact(member))
        return is_digit || c == 'n' || c == 'i';
    if (PyBool_Check(member))
        return c == 'T' || c == 'F';
    if (PyDict_CheckExact(member))
        return c == '{';
    if (PyList_CheckExact(member) || PyTuple_CheckExact(member))
        return c == '[' || c == '(';
    return member != Py_None || c == 'N';
}

/* Whether *header*, of *n* characters, has the brackets of *value*, which is not empty, and begins as its repr does. */
static int begins_like(PyObject *header, Py_ssize_t n, PyObject *value) {
    Py_UCS4 open = char_at(header, 0), close = char_at(header, n - 1);
    Py_ssize_t position = 0;
    PyObject *member = NULL;
    if (PyDict_CheckExact(value)) {
        if (open != '{' || close != '}')
            return 0;
        PyDict_Next(value, &position, &member, NULL);
    } else {
        if ((open != '(' && open != '[') || (close != ')' && close != ']'))
            return 0;
        member = PyTuple_CheckExact(value) ? PyTuple_GET_ITEM(value, 0) : PyList_GET_ITEM(value, 0);
    }
    return may_begin(member, char_at(header, 1));
}

/* Whether *header* may show, outside texts, what JSON does not: an object's "<", or a tuple of one, ",)". */
static int may_be_odd(PyObject *header, Py_ssize_t n) {
    Py_ssize_t bracket = PyUnicode_FindChar(header, ')', 0, n, 1);
    return (bracket != -1 && bracket != n - 1) || PyUnicode_FindChar(header, '<', 0, n, 1) != -1;
}

/* Whether a text among the members of *value* is longer than *n* characters. */
static int has_longer_text(PyObject *value, Py_ssize_t n) {
    Py_ssize_t position = 0;
    PyObject *member;
    if (PyDict_CheckExact(value)) {
        while (PyDict_Next(value, &position, NULL, &member))
            if (PyUnicode_CheckExact(member) && PyUnicode_GET_LENGTH(member) > n)
                return 1;
        return 0;
    }
    for (; position < Py_SIZE(value); position++) {
        member = PyTuple_CheckExact(value) ? PyTuple_GET_ITEM(value, position) : PyList_GET_ITEM(value, position);
        if (PyUnicode_CheckExact(member) && PyUnicode_GET_LENGTH(member) > n)
            return 1;
    }
    return 0;
}

/* Whether the only dots of *header*, at *first*, show that it was cut by size at its end. */
static int is_cut_at_end(PyObject *header, Py_ssize_t n, Py_ssize_t first, PyObject *value) {
    Py_ssize_t shown = n, i = 0;
    Py_UCS4 c = 0, before = char_at(header, first - 1);
    while (i < n && (c = char_at(header, i), c == '(' || c == '[' || c == '{'))
        i++;
    if (before == '(' || before == '[' || before == '{' || before == '\\' || c > 0x7e || !c ||
        strchr("])},.'\"<-0123456789", (int)c) == NULL) /* a name: perhaps the caller's own text */
        return 0;
    while (shown > 0 && (c = char_at(header, shown - 1), c == ')' || c == ']' || c == '}' || c == ','))
        shown--;
    if (c == '\'' && first == shown - 4) /* ...')] */
        return has_longer_text(value, n);
    /* , ...)] */
    return shown > 9 && PyUnicode_Tailmatch(header, comma_dots, 0, shown, 1) == 1 && first >= shown - 9;
}

/* Reads what its length and its end tell: a whole header, or one that was cut at its end. Returns 0 for others. */
static int read_header(PyObject *header, Py_ssize_t n, PyObject *value, const Walk *w, Part *part) {
    Py_ssize_t first = PyUnicode_Find(header, dots, 0, n, 1);
    int comma = PyList_CheckExact(value) && Py_SIZE(value) == 1 && char_at(header, 0) == '('; /* (1,) came as [1] */
    i64 need = w->plain + w->repr + comma;
    if (first < -1 || !begins_like(header, n, value))
        return 0;
    if (first == -1)
        return need == n;
    if (need <= n || !is_cut_at_end(header, n, first, value) || may_be_odd(header, n))
        return 0;
    Text t = read_text(header);
    const i64 sums[] = {
        need + w->utf8, w->plain + w->escaped + comma, utf8(&t), ascii(&t), w->commas, w->keys, w->containers,
        chain_steps(w)};
    memcpy(part->sums, sums, sizeof(sums));
    part->need = need;
    part->is_cut = 1;
    return 1;
}

/* Measures args or kwargs. *leaves*: how many go to *aside*, and what Python measured of them, which is all ASCII:
   characters as JSON and of the repr; NULL: nothing yet. Returns 0 for what Python must judge, such as an unusual
   header. */
static int measure_part(PyObject *value, PyObject *header, PyObject *aside, const i64 *leaves, Part *part) {
    int is_dict = PyDict_CheckExact(value);
    Py_ssize_t n = PyUnicode_CheckExact(header) && IS_READY(header) ? PyUnicode_GET_LENGTH(header) : 0;
    if (n < 2 || n > MAX_HEADER || !(is_dict || PyTuple_CheckExact(value) || PyList_CheckExact(value)))
        return 0;
    *part = (Part){.header = n, .need = n, .levels = 1};
    if (!(is_dict ? PyDict_GET_SIZE(value) : Py_SIZE(value))) { /* counts as nothing */
        Py_UCS4 open = char_at(header, 0), close = char_at(header, 1);
        return n == 2 &&
               (is_dict ? open == '{' && close == '}' : (open == '(' && close == ')') || (open == '[' && close == ']'));
    }
    Walk w;
    begin(&w, aside);
    if (walk(&w, value, 1) < 0)
        return 0;
    if (leaves) {
        if (PyList_GET_SIZE(aside) != 2 * leaves[0])
            return 0; /* it has changed */
        w.plain += leaves[2];
        w.json += leaves[1] - leaves[2];
    } else if (PyList_GET_SIZE(aside)) {
        return 1; /* to be measured again */
    }
    part->chars = w.plain + w.json;
    part->bytes = part->chars + w.utf8;
    part->levels = w.levels;
    return part->chars <= MAX_CHARS && read_header(header, n, value, &w, part);
}

/* -- counters: docs/shared-memory.md has the layout, figures/layout.py the same numbers -- */

enum { UPDATES, PENDING, EPOCH, NAMES, OWNER, RESETS, REDO, MAX_CHANGES = 96 };
enum { LARGE, TRUNCATED, UNMEASURABLE, ERRORS, EPOCHS, PARTS = EPOCHS + 2 };
enum {
    P_EMPTY,
    P_CHARS,
    P_BYTES,
    P_NEED,
    P_LARGE,
    P_UNMEASURABLE,
    P_BY_SIZE,
    P_BY_DEPTH,
    P_BY_BOTH,
    P_CUSTOM,
    P_UNKNOWN,
    P_SUMS,
    P_MAX_CHARS = P_SUMS + 8,
    P_MAX_BYTES,
    P_MAX_DENSITY,
    P_MAX_NEED,
    P_MAX_LEVELS,
    MAXIMA = 5,
    P_HISTOGRAMS = P_MAX_CHARS + 2 * MAXIMA,
};
enum { NEW_MAXIMUM = 1, LARGE_PART = 2, AT_ONCE = 4, CUT = 8, LONG = 16 };
enum { CHARS_LE, BYTES_LE, NEED_LE, FLAT_LE, DEEP_LE, FLAT_NEED_LE, DEEP_NEED_LE, HISTOGRAMS };

/* What is large, what is written at once, and the upper bounds of the buckets. */
typedef struct {
    i64 large_chars, at_once_bytes;
    const i64 *bounds;
    int buckets;
} Plan;

/* One update of a region: new values of its words. Maxima of this epoch are in one of two banks; *fresh*: still those
   of an earlier epoch. */
typedef struct {
    i64 *words;
    int count, bank, fresh;
} Update;

static inline void set(Update *u, i64 index, i64 value) {
    u->words[REDO + 2 * u->count] = index;
    u->words[REDO + 2 * u->count++ + 1] = value;
}

static inline void add(Update *u, i64 index, i64 number) {
    if (number)
        set(u, index, u->words[index] + number);
}

static inline int raise_to(Update *u, i64 index, i64 value) {
    index += u->bank * MAXIMA;
    if (value <= (u->fresh ? 0 : u->words[index]))
        return 0;
    set(u, index, value);
    return 1;
}

static void apply(i64 *words) {
    for (i64 i = 0; i < words[PENDING] && i < MAX_CHANGES; i++)
        words[words[REDO + 2 * i]] = words[REDO + 2 * i + 1];
    __atomic_thread_fence(__ATOMIC_ACQ_REL);
    words[UPDATES]++;
    __atomic_thread_fence(__ATOMIC_ACQ_REL);
    words[PENDING] = 0;
}

/* Makes the changes that were written as the redo record. Killed before PENDING is set, none is made; later, whoever
   finds the record makes them all again. The fences keep compiler and processor from changing the order. */
static void commit(Update *u) {
    __atomic_thread_fence(__ATOMIC_ACQ_REL);
    u->words[PENDING] = u->count;
    __atomic_thread_fence(__ATOMIC_ACQ_REL);
    apply(u->words);
}

static int bucket_of(const Plan *plan, i64 value) {
    int low = 0, count = plan->buckets;
    while (low < count) {
        int middle = (low + count) / 2;
        if (plan->bounds[middle] < value)
            low = middle + 1;
        else
            count = middle;
    }
    return low;
}

static i64 part_at(i64 base, int part, const Plan *plan) {
    return base + PARTS + part * (P_HISTOGRAMS + HISTOGRAMS * (plan->buckets + 1));
}

/* Adds a part to the words from *at*. Returns what there is to tell: see figures/layout.py. */
static int add_part(Update *u, i64 at, const Plan *plan, const Part *part) {
    i64 histograms = at + P_HISTOGRAMS, size = plan->buckets + 1;
    if (!part->chars) {
        add(u, at + P_EMPTY, 1);
        return 0;
    }
    int bucket = bucket_of(plan, part->chars), is_large = part->chars > plan->large_chars;
    add(u, at + P_CHARS, part->chars);
    add(u, at + P_LARGE, is_large);
    add(u, histograms + CHARS_LE * size + bucket, 1);
    if (part->bytes != part->chars) { /* not ASCII: what bytes are more than characters */
        int of_bytes = bucket_of(plan, part->bytes);
        add(u, at + P_BYTES, part->bytes - part->chars);
        if (of_bytes != bucket) {
            add(u, histograms + BYTES_LE * size + of_bytes, 1);
            add(u, histograms + BYTES_LE * size + bucket, -1);
        }
        raise_to(u, at + P_MAX_BYTES, part->bytes);
        raise_to(u, at + P_MAX_DENSITY, (part->bytes * 1000 + part->chars - 1) / part->chars);
    }
    bucket = bucket_of(plan, part->need);
    add(u, at + P_NEED, part->need);
    add(u, histograms + NEED_LE * size + bucket, 1);
    if (part->is_cut) {
        int deep = part->levels > DEFAULT_LEVELS;
        add(u, at + P_BY_SIZE, 1);
        add(u, histograms + (FLAT_LE + deep) * size + bucket, 1);
        add(u, histograms + (FLAT_NEED_LE + deep) * size + bucket, part->need);
        for (int i = 0; i < 8; i++)
            add(u, at + P_SUMS + i, part->sums[i]);
        raise_to(u, at + P_MAX_LEVELS, part->levels);
    }
    raise_to(u, at + P_MAX_NEED, part->need);
    int is_long = !part->is_cut && (part->header > DEFAULT_LIMIT || part->levels > DEFAULT_LEVELS);
    return raise_to(u, at + P_MAX_CHARS, part->chars) * NEW_MAXIMUM | is_large * LARGE_PART |
           (part->bytes > plan->at_once_bytes) * AT_ONCE | part->is_cut * CUT | is_long * LONG;
}

/* Begins an update of the words from *base* on. */
static int open_region(PyObject *const *args, Py_buffer *view, Update *u, Plan *plan, i64 *base) {
    *base = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred() || PyObject_GetBuffer(args[0], view, PyBUF_WRITABLE) < 0)
        return -1;
    const i64 *numbers_ = (const i64 *)PyBytes_AS_STRING(args[2]);
    *plan = (Plan){numbers_[0], numbers_[1], numbers_ + 2, (int)(PyBytes_GET_SIZE(args[2]) / 8) - 2};
    i64 *words = view->buf, epoch = words[EPOCH];
    int bank = (int)(epoch & 1);
    *u = (Update){words, 0, bank, words[*base + EPOCHS + bank] != epoch};
    if (u->fresh) {
        set(u, *base + EPOCHS + bank, epoch);
        for (int i = 0; i < 2 * MAXIMA; i++)
            set(u, part_at(*base, i / MAXIMA, plan) + P_MAX_CHARS + bank * MAXIMA + i % MAXIMA, 0);
    }
    return 0;
}

/* count(region, base, plan, args, argsrepr, aside, kwargs, kwargsrepr, aside, leaves): measures and counts a run.
   Returns what there is to tell about it (see add_part), that of kwargs 8 bits higher. Having counted nothing, it
   returns -1 if Python must do it, and -2 if there are leaves in an *aside* and *leaves* is empty. */
static PyObject *count_py(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer view;
    Update u;
    Plan plan;
    Part parts[2];
    i64 leaves[6] = {0}, base;
    int tell = 0;
    if (nargs != 10 || !PyBytes_CheckExact(args[2]) || !PyList_CheckExact(args[5]) || !PyList_CheckExact(args[8]) ||
        !PyTuple_CheckExact(args[9]))
        return PyErr_Format(PyExc_TypeError, "count() takes ten arguments");
    Py_ssize_t known = PyTuple_GET_SIZE(args[9]);
    for (Py_ssize_t i = 0; i < known && i < 6; i++)
        leaves[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(args[9], i));
    for (int i = 0; i < 2; i++)
        if (!measure_part(args[3 + 3 * i], args[4 + 3 * i], args[5 + 3 * i], known ? leaves + 3 * i : NULL, &parts[i]))
            return PyErr_Occurred() ? NULL : PyLong_FromLong(-1);
    if (!known && (PyList_GET_SIZE(args[5]) || PyList_GET_SIZE(args[8])))
        return PyLong_FromLong(-2);
    if (PyErr_Occurred() || open_region(args, &view, &u, &plan, &base) < 0)
        return NULL;
    add(&u, base + LARGE, parts[0].chars > plan.large_chars || parts[1].chars > plan.large_chars);
    add(&u, base + TRUNCATED, parts[0].is_cut || parts[1].is_cut);
    for (int i = 0; i < 2; i++)
        tell |= add_part(&u, part_at(base, i, &plan), &plan, &parts[i]) << (8 * i);
    commit(&u);
    PyBuffer_Release(&view);
    return PyLong_FromLong(tell);
}

/* update(region, base, plan, adds, maxima): counts what Python measured: {word: number}, relative to base. Returns
   which sizes are new maxima, as count() does. */
static PyObject *update_py(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs) {
    Py_buffer view;
    Update u;
    Plan plan;
    i64 base;
    int tell = 0;
    if (nargs != 5 || !PyBytes_CheckExact(args[2]) || !PyDict_CheckExact(args[3]) || !PyDict_CheckExact(args[4]) ||
        PyDict_GET_SIZE(args[3]) + PyDict_GET_SIZE(args[4]) > MAX_CHANGES - 1 - 2 * MAXIMA)
        return PyErr_Format(PyExc_TypeError, "update() takes five arguments");
    if (open_region(args, &view, &u, &plan, &base) < 0)
        return NULL;
    for (int i = 3; i < 5; i++) {
        PyObject *word, *number;
        Py_ssize_t position = 0;
        while (PyDict_Next(args[i], &position, &word, &number)) {
            i64 index = base + PyLong_AsLongLong(word), value = PyLong_AsLongLong(number);
            if (i == 3)
                add(&u, index, value);
            else if (raise_to(&u, index, value))
                for (int part = 0; part < 2; part++)
                    tell |= (index == part_at(base, part, &plan) + P_MAX_CHARS) * NEW_MAXIMUM << (8 * part);
        }
    }
    if (!PyErr_Occurred())
        commit(&u);
    PyBuffer_Release(&view);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(tell);
}

static PyMethodDef methods[] = {
    {"walk", (PyCFunction)(void (*)(void))walk_py, METH_FASTCALL, "walk(value, aside) -> figures, or None"},
    {"count", (PyCFunction)(void (*)(void))count_py, METH_FASTCALL, "Measure and count a run."},
    {"update", (PyCFunction)(void (*)(void))update_py, METH_FASTCALL, "Count what Python measured."},
    {NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_compiled", NULL, -1, methods};

PyMODINIT_FUNC PyInit__compiled(void) {
    dots = PyUnicode_InternFromString("...");
    comma_dots = PyUnicode_InternFromString(", ...");
    if (dots == NULL || comma_dots == NULL)
        return NULL;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        special_long = special_avx2;
#endif
    return PyModule_Create(&module);
}
