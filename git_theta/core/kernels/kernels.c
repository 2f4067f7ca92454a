/* The hot loops of git-theta: byte planes, differences, and their entropy coding.
 *
 * reference.py says what each function computes; this file computes the same bits, faster. Plain C
 * without Python's API, called through ctypes, which releases the GIL. Little-endian machines only.
 *
 * Nothing here allocates, and nothing trusts a count, a table or a stream that it decodes: every
 * read is within the lengths that the caller passes, which are those of its arrays.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* KERNELS_PORTABLE leaves vector instructions to the compiler; KERNELS_NO_AVX512 stops at AVX2. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(KERNELS_PORTABLE)
#include <immintrin.h>
#define WIDE 1
/* The loader picks the widest version that the processor has. */
#if defined(__clang__) || __GNUC__ < 12 || defined(KERNELS_NO_AVX512)
#define VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif
#else
#define WIDE 0
#define VECTORISED
#endif
#define INLINE inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

/* Words lie wherever a tensor begins in its file: at any address. */
typedef uint8_t u8;
typedef uint16_t u16 __attribute__((aligned(1), may_alias));
typedef uint32_t u32 __attribute__((aligned(1), may_alias));
typedef uint64_t u64 __attribute__((aligned(1), may_alias));

enum {
    BLOCK = 4096,    /* words worked on at a time: their scratch stays in the L1 cache */
    AHEAD = 6144,    /* bytes of raw bits asked for before they are read: those of the next block */
    TOKENS = 144,    /* 16 of the table, and two for each length of a word in bits */
    LITERALS = 16,
    MAX_CONTEXTS = 32,
    PRECISION = 12,  /* frequencies of a context add up to 1 << 12 */
    TOTAL = 1 << PRECISION,
    LEAST = 1 << 16  /* a state is at least this between two symbols */
};

/* The block of words that comes next, in two arrays. Asked for a line at a time, between work that
 * does without memory: of a chunk that is in no cache, coding took a third less. All at once, it took
 * as long as without. */
typedef struct {
    const u8 *new, *old;
    size_t word;
} next_block;

static INLINE void ask_for(const next_block *block, size_t place)
{
    __builtin_prefetch(block->new + place * block->word, 0, 2);
    __builtin_prefetch(block->old + place * block->word, 0, 2);
}

/* ---- Planes ---- */

/* The sign moved below `exponent` bits: sEEEEEEE Emmm... -> EEEEEEEE smmm... */
#define ROTATE(T, BITS)                                                                           \
    static INLINE T rotated##BITS(T word, unsigned exponent)                                      \
    {                                                                                             \
        T below = (T)(((T)1 << (BITS - 1 - exponent)) - 1);                                       \
        T sign = (T)(word >> (BITS - 1)), rest = (T)(word & (T)~((T)1 << (BITS - 1)));            \
        return (T)((T)((rest & (T)~below) << 1) | (T)(sign << (BITS - 1 - exponent)) |            \
                   (rest & below));                                                               \
    }                                                                                             \
    static INLINE T restored##BITS(T word, unsigned exponent)                                     \
    {                                                                                             \
        T below = (T)(((T)1 << (BITS - 1 - exponent)) - 1);                                       \
        T sign = (T)((word >> (BITS - 1 - exponent)) & 1);                                        \
        return (T)((T)(sign << (BITS - 1)) | ((T)(word >> 1) & (T)~below & (T)~((T)1 << (BITS - 1))) | \
                   (word & below));                                                               \
    }
ROTATE(uint16_t, 16)
ROTATE(uint32_t, 32)
ROTATE(uint64_t, 64)

#define PLANES(T, BITS, WORD)                                                                     \
    static INLINE void split_##BITS(const u##BITS *words, size_t count, unsigned exponent,        \
                                    u8 *planes)                                                   \
    {                                                                                             \
        for (size_t start = 0; start < count; start += BLOCK) {                                   \
            size_t stop = count - start < BLOCK ? count : start + BLOCK;                          \
            for (int k = 0; k < WORD; k++) {                                                      \
                u8 *restrict plane = planes + (size_t)k * count;                                  \
                if (exponent)                                                                     \
                    for (size_t i = start; i < stop; i++)                                         \
                        plane[i] = (u8)(rotated##BITS(words[i], exponent) >> (8 * k));            \
                else                                                                              \
                    for (size_t i = start; i < stop; i++)                                         \
                        plane[i] = (u8)(words[i] >> (8 * k));                                     \
            }                                                                                     \
        }                                                                                         \
    }                                                                                             \
    static INLINE void join_##BITS(const u8 *const *planes, size_t count, unsigned exponent,      \
                                   u##BITS *restrict words)                                       \
    {                                                                                             \
        for (size_t start = 0; start < count; start += BLOCK) {                                   \
            size_t length = count - start < BLOCK ? count - start : BLOCK;                        \
            T block[BLOCK];                                                                       \
            for (size_t i = 0; i < length; i++)                                                   \
                block[i] = planes[0][start + i];                                                  \
            for (int k = 1; k < WORD; k++) {                                                      \
                const u8 *plane = planes[k] + start;                                              \
                for (size_t i = 0; i < length; i++)                                               \
                    block[i] = (T)(block[i] | (T)((T)plane[i] << (8 * k)));                       \
            }                                                                                     \
            if (exponent)                                                                         \
                for (size_t i = 0; i < length; i++)                                               \
                    block[i] = restored##BITS(block[i], exponent);                                \
            memcpy(words + start, block, length * WORD);                                          \
        }                                                                                         \
    }                                                                                             \
    VECTORISED EXPORT void theta_split_##WORD(const u##BITS *words, size_t count,                 \
                                              unsigned exponent, u8 *planes)                      \
    {                                                                                             \
        split_##BITS(words, count, exponent, planes);                                             \
    }                                                                                             \
    VECTORISED EXPORT void theta_join_##WORD(const u8 *const *planes, size_t count,               \
                                             unsigned exponent, u##BITS *words)                   \
    {                                                                                             \
        join_##BITS(planes, count, exponent, words);                                              \
    }
PLANES(uint16_t, 16, 2)
PLANES(uint32_t, 32, 4)
PLANES(uint64_t, 64, 8)

/* ---- Differences and comparison ---- */

#define DIFFERENCES(T, BITS, WORD)                                                                \
    static INLINE void difference_##BITS(const u##BITS *new, const u##BITS *old, size_t count,    \
                                         u##BITS *restrict out)                                   \
    {                                                                                             \
        for (size_t i = 0; i < count; i++) {                                                      \
            T delta = (T)(new[i] - old[i]);                                                       \
            out[i] = (T)((T)(delta << 1) ^ (T)(0 - (delta >> (BITS - 1))));                       \
        }                                                                                         \
    }                                                                                             \
    static INLINE void restore_##BITS(const u##BITS *differences, const u##BITS *old,             \
                                      size_t count, u##BITS *out)                                 \
    {                                                                                             \
        for (size_t i = 0; i < count; i++) {                                                      \
            T z = differences[i];                                                                 \
            out[i] = (T)(old[i] + ((T)(z >> 1) ^ (T)(0 - (z & 1))));                              \
        }                                                                                         \
    }                                                                                             \
    VECTORISED EXPORT void theta_difference_##WORD(const u##BITS *new, const u##BITS *old,        \
                                                   size_t count, u##BITS *out)                    \
    {                                                                                             \
        difference_##BITS(new, old, count, out);                                                  \
    }                                                                                             \
    VECTORISED EXPORT void theta_restore_##WORD(const u##BITS *differences, const u##BITS *old,   \
                                                size_t count, u##BITS *out)                       \
    {                                                                                             \
        restore_##BITS(differences, old, count, out);                                             \
    }                                                                                             \
    VECTORISED EXPORT size_t theta_changed_##WORD(const u##BITS *new, const u##BITS *old,         \
                                                  size_t count, size_t limit)                     \
    {                                                                                             \
        size_t changed = 0;                                                                       \
        for (size_t start = 0; start < count && changed <= limit; start += BLOCK) {               \
            size_t length = count - start < BLOCK ? count - start : BLOCK;                        \
            uint32_t here = 0;                                                                    \
            for (size_t i = 0; i < length; i++)                                                   \
                here += new[start + i] != old[start + i];                                         \
            changed += here;                                                                      \
        }                                                                                         \
        return changed;                                                                           \
    }
DIFFERENCES(uint8_t, 8, 1)
DIFFERENCES(uint16_t, 16, 2)
DIFFERENCES(uint32_t, 32, 4)
DIFFERENCES(uint64_t, 64, 8)

/* ---- Entropy coding of differences in the context of their bases ----
 *
 * A difference is a token and a few raw bits. Tokens are coded by interleaved rANS: word i of a
 * chunk with the state of lane i % lanes, by the frequencies of its context, which a byte of the
 * base's word selects. An entry of a table of 1 << 12 slots to a context is
 * (frequency - 1) << 20 | (slot - start) << 8 | token.
 */

EXPORT void theta_tables(const uint16_t *frequencies, size_t contexts, uint32_t *slots,
                         uint32_t *ranges)
{
    for (size_t c = 0; c < contexts; c++) {
        uint32_t start = 0;
        for (uint32_t token = 0; token < TOKENS; token++) {
            uint32_t frequency = frequencies[c * TOKENS + token];
            if (frequency > TOTAL - start)
                frequency = TOTAL - start; /* the caller has checked that this cannot be */
            ranges[c * TOKENS + token] = frequency << 16 | start;
            for (uint32_t k = 0; k < frequency; k++)
                slots[c * TOTAL + start + k] = (frequency - 1) << 20 | k << 8 | token;
            start += frequency;
        }
        for (; start < TOTAL; start++)
            slots[c * TOTAL + start] = 0;
    }
}

/* The token of a difference that is no literal: twice its length, and its second highest bit. */
static INLINE uint8_t long_token(uint64_t z)
{
    if (z < 2)
        return (uint8_t)(LITERALS + z);
    unsigned length = 63u - (unsigned)__builtin_clzll(z);
    return (uint8_t)(LITERALS + 2 * length + ((z >> (length - 1)) & 1));
}

static INLINE unsigned raw_bits(uint8_t token)
{
    return token < LITERALS + 4 ? 0 : (unsigned)(token - LITERALS) / 2 - 1;
}

/* Whether most tokens of a block have raw bits. In 16 bits, which is vectorised best. */
static INLINE int is_dense(const uint8_t *tokens, size_t count)
{
    uint16_t found = 0;
    for (size_t i = 0; i < count; i++)
        found = (uint16_t)(found + (tokens[i] >= LITERALS + 4));
    return found > count / 2;
}

static INLINE uint32_t sum(const uint8_t *lengths, size_t count)
{
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += lengths[i];
    return found;
}

/* Where tokens from `least` on are; without a branch, which would often be mispredicted. */
static size_t find_tokens(const uint8_t *restrict tokens, size_t count, uint8_t least,
                               uint16_t *restrict places)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        places[found] = (uint16_t)i;
        found += tokens[i] >= least;
    }
    return found;
}

/* A state below frequency << 20 times this, shifted by 44, is its quotient by the frequency: the
 * error is less than frequency / 2^24, and at most 1 / frequency would be too much. The product
 * is below 2^64. */
static void invert(const uint8_t *contexts, const uint32_t *ranges, uint64_t *inverses)
{
    size_t count = 0;
    for (int key = 0; key < 256; key++)
        count = contexts[key] >= count ? contexts[key] + 1u : count;
    count = count < MAX_CONTEXTS ? count : MAX_CONTEXTS;
    for (size_t i = 0; i < count * TOKENS; i++)
        inverses[i] = ranges[i] >> 16 ? ((uint64_t)1 << 44) / (ranges[i] >> 16) + 1 : 0;
}

static INLINE uint64_t read_bits(const u8 *bits, size_t length, uint64_t position, unsigned count)
{
    uint64_t found = 0;
    size_t at = position >> 3;
    if (at + 8 <= length)
        found = *(const u64 *)(bits + at);
    else
        memcpy(&found, bits + at, length - at);
    return (found >> (position & 7)) & (((uint64_t)1 << count) - 1);
}

/* Raw bits one behind another, from bit `position` on. What lies at and behind `end`, where they
 * end, is kept: blocks are coded from the last to the first. Every store covers eight bytes and
 * depends on no store before it, which would take longer than all else. */
typedef struct {
    u8 *at, *end;
    uint64_t held, kept;
    unsigned count;
} bit_writer;

static INLINE bit_writer begin_bits(u8 *bits, uint64_t position, uint64_t end)
{
    bit_writer writer = {bits + (position >> 3), bits + (end >> 3), 0, 0, position & 7};
    writer.kept = *(const u64 *)writer.end;
    return writer;
}

/* Up to 56 bits, without a branch. */
static INLINE void write_bits(bit_writer *writer, uint64_t value, unsigned count)
{
    uint64_t held = writer->held | value << writer->count;
    unsigned filled = writer->count + count;
    *(u64 *)writer->at = held;
    writer->at += filled >> 3;
    writer->held = held >> (filled & 56);
    writer->count = filled & 7;
}

static INLINE void end_bits(const bit_writer *writer)
{
    *(u64 *)writer->end = writer->kept | writer->held;
}

/* One token, and its lane's state after it, which may be too low. */
static INLINE uint8_t decode_token(const uint32_t *restrict slots, uint32_t context,
                                   uint32_t *state)
{
    uint32_t slot = slots[context << PRECISION | (*state & (TOTAL - 1))];
    *state = ((slot >> 20) + 1) * (*state >> PRECISION) + (slot >> 8 & (TOTAL - 1));
    return (uint8_t)slot;
}

/* Tokens of one block; lanes divide BLOCK, so that each block begins with lane 0. */
static int decode_tokens(const uint32_t *restrict slots, const uint8_t *restrict contexts,
                         uint8_t *restrict tokens, size_t count, size_t lanes,
                         uint32_t *restrict states, const u16 *restrict words, size_t word_count,
                         size_t *used)
{
    const u16 *next = words + *used, *end = words + word_count;
    for (size_t start = 0; start < count; start += lanes) {
        size_t length = count - start < lanes ? count - start : lanes;
        if ((size_t)(end - next) > length) {
            for (size_t j = 0; j < length; j++) {
                uint32_t state = states[j];
                tokens[start + j] = decode_token(slots, contexts[start + j], &state);
                /* No branch: it would be mispredicted for each word that is read. */
                uint32_t is_low = state < LEAST, more = state << 16 | *next;
                states[j] = state ^ ((state ^ more) & (0 - is_low));
                next += is_low;
            }
            continue;
        }
        for (size_t j = 0; j < length; j++) {
            uint32_t state = states[j];
            tokens[start + j] = decode_token(slots, contexts[start + j], &state);
            if (state < LEAST) {
                if (next == end)
                    return 0;
                state = state << 16 | *next++;
            }
            states[j] = state;
        }
    }
    *used = (size_t)(next - words);
    return 1;
}

/* Tokens of one block, backwards; `ats` has the place of each one's range. */
static int encode_tokens_each(const uint32_t *restrict ranges, const uint64_t *restrict inverses,
                              const uint16_t *restrict ats, size_t count, size_t least,
                              size_t lanes, uint32_t *restrict states, const u16 *words,
                              u16 **end)
{
    u16 *next = *end;
    for (size_t i = count; i-- > least;) {
        uint32_t range = ranges[ats[i]], frequency = range >> 16;
        uint32_t state = states[i & (lanes - 1)];
        if (frequency == 0 || next == words)
            return 0;
        uint32_t is_full = (state >> (32 - PRECISION)) >= frequency;
        next[-1] = (uint16_t)state;
        next -= is_full;
        state = is_full ? state >> 16 : state;
        uint32_t quotient = (uint32_t)(state * inverses[ats[i]] >> 44);
        states[i & (lanes - 1)] =
            (quotient << PRECISION) + (state - quotient * frequency) + (range & 0xffff);
    }
    *end = next;
    return 1;
}

#if WIDE
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx512vbmi,avx512vbmi2")))
#define AVX2 __attribute__((target("avx2")))

static int has_avx2, has_avx512;

__attribute__((constructor)) static void find_vectors(void)
{
    __builtin_cpu_init();
    has_avx2 = __builtin_cpu_supports("avx2");
#ifndef KERNELS_NO_AVX512
    has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vbmi") &&
                 __builtin_cpu_supports("avx512vbmi2");
#endif
}

/* Four or eight entries of a table. The instructions that gather them take longer: 16 tokens were
 * coded and decoded in 0.7 ns each with them, and in 0.35 without. */
#define FOUR(TABLE, AT)                                                                           \
    _mm_insert_epi32(_mm_insert_epi32(_mm_insert_epi32(_mm_cvtsi32_si128((int)(TABLE)[(AT)[0]]),  \
                                                       (int)(TABLE)[(AT)[1]], 1),                 \
                                      (int)(TABLE)[(AT)[2]], 2),                                  \
                     (int)(TABLE)[(AT)[3]], 3)
#define EIGHT(TABLE, AT) _mm256_set_m128i(FOUR(TABLE, (AT) + 4), FOUR(TABLE, AT))
#define SIXTEEN(TABLE, AT)                                                                        \
    _mm512_inserti64x4(_mm512_castsi256_si512(EIGHT(TABLE, AT)), EIGHT(TABLE, (AT) + 8), 1)

/* 16 lanes at a time: 0.37 ns for a token, where decode_tokens takes 1.4. */
AVX512 static size_t
decode_tokens_wide(const uint32_t *slots, const uint8_t *contexts, uint8_t *tokens, size_t count,
                   size_t lanes, uint32_t *states, const u16 *words, size_t word_count, size_t *used,
                   const next_block *ahead)
{
    const u16 *next = words + *used, *end = words + word_count;
    const __m512i mask = _mm512_set1_epi32(TOTAL - 1), one = _mm512_set1_epi32(1);
    const __m512i least = _mm512_set1_epi32(LEAST);
    size_t start = 0;
    for (; count - start >= lanes && (size_t)(end - next) >= lanes + 16; start += lanes) {
        for (size_t j = 0; j < lanes; j += 16) {
            ask_for(ahead, start + j);
            __m512i state = _mm512_loadu_si512(states + j);
            __m512i context = _mm512_cvtepu8_epi32(
                _mm_loadu_si128((const __m128i *)(contexts + start + j)));
            uint32_t at[16] __attribute__((aligned(64)));
            _mm512_store_si512(at, _mm512_or_si512(_mm512_slli_epi32(context, PRECISION),
                                                   _mm512_and_si512(state, mask)));
            __m512i slot = SIXTEEN(slots, at);
            __m512i frequency = _mm512_add_epi32(_mm512_srli_epi32(slot, 20), one);
            __m512i bias = _mm512_and_si512(_mm512_srli_epi32(slot, 8), mask);
            state = _mm512_add_epi32(
                _mm512_mullo_epi32(frequency, _mm512_srli_epi32(state, PRECISION)), bias);
            _mm_storeu_si128((__m128i *)(tokens + start + j), _mm512_cvtepi32_epi8(slot));
            __mmask16 low = _mm512_cmplt_epu32_mask(state, least);
            __m512i more = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)next));
            state = _mm512_mask_or_epi32(state, low, _mm512_slli_epi32(state, 16),
                                         _mm512_maskz_expand_epi32(low, more));
            next += __builtin_popcount(low);
            _mm512_storeu_si512(states + j, state);
        }
    }
    *used = (size_t)(next - words);
    return start;
}

/* 16 lanes at a time, of whole steps only; how many tokens are left. */
AVX512 static size_t
encode_tokens_wide(const uint32_t *ranges, const uint16_t *ats, size_t count, size_t lanes,
                   uint32_t *states, const u16 *words, u16 **end, const next_block *ahead)
{
    u16 *next = *end;
    const __m512i low = _mm512_set1_epi32(0xffff), one = _mm512_set1_epi32(1);
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (; count > 0 && (size_t)(next - words) > lanes; count -= lanes) {
        for (size_t j = lanes; j > 0; j -= 16) {
            const uint16_t *at = ats + count - lanes + j - 16;
            ask_for(ahead, count - lanes + j - 16);
            __m512i range = SIXTEEN(ranges, at);
            __m512i frequency = _mm512_srli_epi32(range, 16);
            if (_mm512_test_epi32_mask(frequency, frequency) != 0xffff)
                return count; /* a token without a frequency, which the other loop refuses */
            __m512i state = _mm512_loadu_si512(states + j - 16);
            __mmask16 full = _mm512_cmpge_epu32_mask(
                _mm512_srli_epi32(state, 32 - PRECISION), frequency);
            unsigned more = (unsigned)__builtin_popcount(full);
            /* Turned, so that those that are full are the last of 16 words: a store of some of them
             * takes longer than of all. */
            __m512i out = _mm512_permutexvar_epi32(
                _mm512_add_epi32(lane, _mm512_set1_epi32((int)more)),
                _mm512_maskz_compress_epi32(full, state));
            _mm256_storeu_si256((__m256i *)(next - 16), _mm512_cvtepi32_epi16(out));
            next -= more;
            state = _mm512_mask_srli_epi32(state, full, state, 16);
            /* The quotient has 20 bits: in floats it is right, or one more or less. */
            __m512i quotient = _mm512_cvttps_epu32(
                _mm512_div_ps(_mm512_cvtepu32_ps(state), _mm512_cvtepu32_ps(frequency)));
            __m512i rest = _mm512_sub_epi32(state, _mm512_mullo_epi32(quotient, frequency));
            __mmask16 less = _mm512_movepi32_mask(rest);
            quotient = _mm512_mask_sub_epi32(quotient, less, quotient, one);
            rest = _mm512_mask_add_epi32(rest, less, rest, frequency);
            __mmask16 over = _mm512_cmpge_epu32_mask(rest, frequency);
            quotient = _mm512_mask_add_epi32(quotient, over, quotient, one);
            rest = _mm512_mask_sub_epi32(rest, over, rest, frequency);
            state = _mm512_add_epi32(
                _mm512_add_epi32(_mm512_slli_epi32(quotient, PRECISION), rest),
                _mm512_and_si512(range, low));
            _mm512_storeu_si512(states + j - 16, state);
        }
    }
    *end = next;
    return count;
}

/* The contexts of whole runs of 64 keys; how many that are. */
AVX512 static size_t to_contexts_wide(const uint8_t *contexts, const uint8_t *keys, size_t count,
                                      uint8_t *found)
{
    __m512i a = _mm512_loadu_si512(contexts), b = _mm512_loadu_si512(contexts + 64);
    __m512i c = _mm512_loadu_si512(contexts + 128), d = _mm512_loadu_si512(contexts + 192);
    size_t i = 0;
    for (; count - i >= 64; i += 64) {
        __m512i key = _mm512_loadu_si512(keys + i);
        __m512i low = _mm512_permutex2var_epi8(a, key, b);
        __m512i high = _mm512_permutex2var_epi8(c, key, d);
        _mm512_storeu_si512(found + i, _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(key), high));
    }
    return i;
}

/* The token of each difference; with its highest bit shifted to the top, the next one follows. */
AVX512 static INLINE __m128i tokens_of_16(__m512i z, __m512i few, __m512i first)
{
    __m512i above = _mm512_lzcnt_epi32(z);
    __m512i head = _mm512_srli_epi32(_mm512_sllv_epi32(z, above), 30);
    __m512i token = _mm512_sub_epi32(_mm512_add_epi32(head, _mm512_set1_epi32(LITERALS + 60)),
                                     _mm512_slli_epi32(above, 1));
    __mmask16 is_few = _mm512_cmplt_epu32_mask(z, few);
    return _mm512_cvtepi32_epi8(_mm512_mask_add_epi32(token, is_few, z, first));
}

/* Differences and tokens of whole runs of 32 words of 16 bits; how many that are. */
AVX512 static size_t tokens_wide_16(const u16 *new, const u16 *old, size_t count, unsigned few,
                                    unsigned first, uint16_t *z, uint8_t *tokens)
{
    const __m512i few_ = _mm512_set1_epi32((int)few), first_ = _mm512_set1_epi32((int)first);
    size_t i = 0;
    for (; count - i >= 32; i += 32) {
        __m512i delta = _mm512_sub_epi16(_mm512_loadu_si512(new + i), _mm512_loadu_si512(old + i));
        delta = _mm512_xor_si512(_mm512_slli_epi16(delta, 1), _mm512_srai_epi16(delta, 15));
        _mm512_storeu_si512(z + i, delta);
        for (int half = 0; half < 2; half++) {
            __m256i words = half ? _mm512_extracti64x4_epi64(delta, 1) : _mm512_castsi512_si256(delta);
            _mm_storeu_si128((__m128i *)(tokens + i + 16 * half),
                             tokens_of_16(_mm512_cvtepu16_epi32(words), few_, first_));
        }
    }
    return i;
}

AVX512 static size_t tokens_wide_32(const u32 *new, const u32 *old, size_t count, unsigned few,
                                    unsigned first, uint32_t *z, uint8_t *tokens)
{
    const __m512i few_ = _mm512_set1_epi32((int)few), first_ = _mm512_set1_epi32((int)first);
    size_t i = 0;
    for (; count - i >= 16; i += 16) {
        __m512i delta = _mm512_sub_epi32(_mm512_loadu_si512(new + i), _mm512_loadu_si512(old + i));
        delta = _mm512_xor_si512(_mm512_slli_epi32(delta, 1), _mm512_srai_epi32(delta, 31));
        _mm512_storeu_si512(z + i, delta);
        _mm_storeu_si128((__m128i *)(tokens + i), tokens_of_16(delta, few_, first_));
    }
    return i;
}

AVX512 static INLINE __mmask64 at_least(const uint8_t *tokens, size_t count, uint8_t least)
{
    __mmask64 here = count < 64 ? ((__mmask64)1 << count) - 1 : ~(__mmask64)0;
    return _mm512_mask_cmpge_epu8_mask(here, _mm512_maskz_loadu_epi8(here, tokens),
                                       _mm512_set1_epi8((char)least));
}

/* Tokens from `least` on, in a row; how many these are. `kept`, and `values` below, have room for 64
 * more. */
AVX512 static size_t keep_tokens_wide(const uint8_t *tokens, size_t count, uint8_t least,
                                      uint8_t *kept)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i += 64) {
        __mmask64 mask = at_least(tokens + i, count - i, least);
        __m512i here = _mm512_maskz_loadu_epi8(mask, tokens + i);
        _mm512_storeu_si512(kept + found, _mm512_maskz_compress_epi8(mask, here));
        found += (size_t)__builtin_popcountll(mask);
    }
    return found;
}

/* Differences with such tokens, in a row, and back. `z` is a whole block. */
#define PLACES_WIDE(T, BITS)                                                                      \
    AVX512 static void keep_wide_##BITS(const uint8_t *tokens, size_t count, uint8_t least,       \
                                        const T *z, T *values)                                    \
    {                                                                                             \
        for (size_t i = 0; i < count; i += 64) {                                                  \
            __mmask64 mask = at_least(tokens + i, count - i, least);                              \
            for (size_t j = 0; j < 64 && mask >> j; j += 512 / BITS) {                            \
                __mmask64 part = mask >> j & (~(__mmask64)0 >> (64 - 512 / BITS));                \
                _mm512_storeu_si512(values, _mm512_maskz_compress_epi##BITS(                      \
                    (MASK_##BITS)part, _mm512_loadu_si512(z + i + j)));                           \
                values += __builtin_popcountll(part);                                             \
            }                                                                                     \
        }                                                                                         \
    }                                                                                             \
    AVX512 static void spread_wide_##BITS(const uint8_t *tokens, size_t count, uint8_t least,     \
                                          const T *values, T *z)                                  \
    {                                                                                             \
        for (size_t i = 0; i < count; i += 64) {                                                  \
            __mmask64 mask = at_least(tokens + i, count - i, least);                              \
            for (size_t j = 0; j < 64 && mask >> j; j += 512 / BITS) {                            \
                __mmask64 part = mask >> j & (~(__mmask64)0 >> (64 - 512 / BITS));                \
                _mm512_storeu_si512(z + i + j, _mm512_mask_expand_epi##BITS(                      \
                    _mm512_loadu_si512(z + i + j), (MASK_##BITS)part, _mm512_loadu_si512(values)));\
                values += __builtin_popcountll(part);                                             \
            }                                                                                     \
        }                                                                                         \
    }
#define MASK_16 __mmask32
#define MASK_32 __mmask16
PLACES_WIDE(uint16_t, 16)
PLACES_WIDE(uint32_t, 32)

/* For each mask of 8 lanes: which of the values in a row each lane takes, and the lanes of the mask
 * in a row that ends at the last. */
static uint64_t spread_lanes[256], gather_lanes[256];

__attribute__((constructor)) static void fill_lanes(void)
{
    for (unsigned mask = 0; mask < 256; mask++) {
        unsigned count = (unsigned)__builtin_popcount(mask), taken = 0;
        for (unsigned lane = 0; lane < 8; lane++)
            if (mask >> lane & 1) {
                spread_lanes[mask] |= (uint64_t)taken << 8 * lane;
                gather_lanes[mask] |= (uint64_t)lane << 8 * (8 - count + taken++);
            }
    }
}

AVX2 static INLINE __m256i lanes_of(const uint64_t *lanes, unsigned mask)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(lanes + mask)));
}

/* 8 lanes at a time. */
AVX2 static size_t decode_tokens_avx2(const uint32_t *slots, const uint8_t *contexts,
                                      uint8_t *tokens, size_t count, size_t lanes,
                                      uint32_t *states, const u16 *words, size_t word_count,
                                      size_t *used, const next_block *ahead)
{
    const u16 *next = words + *used, *end = words + word_count;
    const __m256i mask = _mm256_set1_epi32(TOTAL - 1), one = _mm256_set1_epi32(1);
    const __m256i bytes = _mm256_set1_epi32(0x0c080400);
    size_t start = 0;
    for (; count - start >= lanes && (size_t)(end - next) >= lanes + 8; start += lanes) {
        for (size_t j = 0; j < lanes; j += 8) {
            ask_for(ahead, start + j);
            __m256i state = _mm256_loadu_si256((const __m256i *)(states + j));
            __m256i context = _mm256_cvtepu8_epi32(
                _mm_loadl_epi64((const __m128i *)(contexts + start + j)));
            uint32_t at[8] __attribute__((aligned(32)));
            _mm256_store_si256((__m256i *)at,
                               _mm256_or_si256(_mm256_slli_epi32(context, PRECISION),
                                               _mm256_and_si256(state, mask)));
            __m256i slot = EIGHT(slots, at);
            __m256i frequency = _mm256_add_epi32(_mm256_srli_epi32(slot, 20), one);
            __m256i bias = _mm256_and_si256(_mm256_srli_epi32(slot, 8), mask);
            state = _mm256_add_epi32(
                _mm256_mullo_epi32(frequency, _mm256_srli_epi32(state, PRECISION)), bias);
            __m256i found = _mm256_shuffle_epi8(slot, bytes);
            *(u32 *)(tokens + start + j) =
                (uint32_t)_mm_cvtsi128_si32(_mm256_castsi256_si128(found));
            *(u32 *)(tokens + start + j + 4) =
                (uint32_t)_mm_cvtsi128_si32(_mm256_extracti128_si256(found, 1));
            __m256i low =
                _mm256_cmpeq_epi32(_mm256_srli_epi32(state, 16), _mm256_setzero_si256());
            unsigned lows = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(low));
            __m256i more = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)next));
            more = _mm256_permutevar8x32_epi32(more, lanes_of(spread_lanes, lows));
            more = _mm256_or_si256(_mm256_slli_epi32(state, 16), more);
            state = _mm256_blendv_epi8(state, more, low);
            next += __builtin_popcount(lows);
            _mm256_storeu_si256((__m256i *)(states + j), state);
        }
    }
    *used = (size_t)(next - words);
    return start;
}

AVX2 static INLINE __m256 to_floats(__m256i words)
{
    __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(words, _mm256_set1_epi32(0xffff)));
    __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(words, 16));
    return _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536)), low);
}

/* 8 lanes at a time, of whole steps only; how many tokens are left. As encode_tokens_wide. */
AVX2 static size_t encode_tokens_avx2(const uint32_t *ranges, const uint16_t *ats, size_t count,
                                      size_t lanes, uint32_t *states, const u16 *words, u16 **end,
                                      const next_block *ahead)
{
    u16 *next = *end;
    const __m256i low = _mm256_set1_epi32(0xffff), one = _mm256_set1_epi32(1);
    const __m256i zero = _mm256_setzero_si256();
    const __m256i halves = _mm256_set1_epi64x(0x0d0c090805040100);
    for (; count > 0 && (size_t)(next - words) > lanes; count -= lanes) {
        for (size_t j = lanes; j > 0; j -= 8) {
            const uint16_t *at = ats + count - lanes + j - 8;
            ask_for(ahead, count - lanes + j - 8);
            __m256i range = EIGHT(ranges, at);
            __m256i frequency = _mm256_srli_epi32(range, 16);
            if (!_mm256_testz_si256(_mm256_cmpeq_epi32(frequency, zero), low))
                return count; /* a token without a frequency, which the other loop refuses */
            __m256i state = _mm256_loadu_si256((const __m256i *)(states + j - 8));
            __m256i fits = _mm256_cmpgt_epi32(
                frequency, _mm256_srli_epi32(state, 32 - PRECISION));
            unsigned full = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(fits)) & 0xff;
            __m256i out = _mm256_permutevar8x32_epi32(state, lanes_of(gather_lanes, full));
            out = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(out, halves), 0x08);
            /* What lies below those that are full is written again. */
            _mm_storeu_si128((__m128i *)(next - 8), _mm256_castsi256_si128(out));
            next -= __builtin_popcount(full);
            state = _mm256_blendv_epi8(_mm256_srli_epi32(state, 16), state, fits);
            __m256i quotient = _mm256_cvttps_epi32(
                _mm256_div_ps(to_floats(state), _mm256_cvtepi32_ps(frequency)));
            __m256i rest = _mm256_sub_epi32(state, _mm256_mullo_epi32(quotient, frequency));
            __m256i less = _mm256_srai_epi32(rest, 31);
            quotient = _mm256_add_epi32(quotient, less);
            rest = _mm256_add_epi32(rest, _mm256_and_si256(less, frequency));
            __m256i fine = _mm256_cmpgt_epi32(frequency, rest);
            quotient = _mm256_add_epi32(quotient, _mm256_add_epi32(fine, one));
            rest = _mm256_sub_epi32(rest, _mm256_andnot_si256(fine, frequency));
            state = _mm256_add_epi32(
                _mm256_add_epi32(_mm256_slli_epi32(quotient, PRECISION), rest),
                _mm256_and_si256(range, low));
            _mm256_storeu_si256((__m256i *)(states + j - 8), state);
        }
    }
    *end = next;
    return count;
}
#endif

static int encode_tokens(const uint32_t *ranges, const uint64_t *inverses, const uint16_t *ats,
                         size_t count, size_t lanes, uint32_t *states, const u16 *words, u16 **next,
                         const next_block *ahead)
{
#if WIDE
    if (lanes >= 16 && has_avx2) {
        size_t whole = count & ~(lanes - 1);
        if (!encode_tokens_each(ranges, inverses, ats, count, whole, lanes, states, words, next))
            return 0;
        count = (has_avx512 ? encode_tokens_wide : encode_tokens_avx2)(
            ranges, ats, whole, lanes, states, words, next, ahead);
    }
#else
    (void)ahead;
#endif
    return encode_tokens_each(ranges, inverses, ats, count, 0, lanes, states, words, next);
}

/* The contexts of keys. Contexts ascend with their keys: a vectorised comparison for each of the
 * few bounds takes a third of the time of a look-up for each key. */
static INLINE void to_contexts(const uint8_t *contexts, const uint8_t *restrict keys,
                               size_t count, uint8_t *restrict found)
{
    size_t done = 0;
#if WIDE
    if (has_avx512)
        done = to_contexts_wide(contexts, keys, count, found);
#endif
    memset(found + done, contexts[0], count - done);
    for (unsigned key = 1; done < count && key < 256; key++) {
        uint8_t step = (uint8_t)(contexts[key] - contexts[key - 1]);
        uint8_t bound = (uint8_t)key;
        if (step)
            for (size_t i = done; i < count; i++)
                found[i] = (uint8_t)(found[i] + (keys[i] >= bound ? step : 0));
    }
}

/* Widths of words for which there are functions as above, and stand-ins for those for which not. */
#define WIDE_8 0
#define WIDE_64 0
#if WIDE
#define WIDE_16 has_avx512
#define WIDE_32 has_avx512
#else
#define WIDE_16 0
#define WIDE_32 0
static INLINE size_t keep_tokens_wide(const uint8_t *tokens, size_t count, uint8_t least,
                                      uint8_t *kept)
{
    (void)tokens, (void)count, (void)least, (void)kept;
    return 0;
}
#endif
#define NOT_WIDE(T, BITS)                                                                         \
    static INLINE size_t tokens_wide_##BITS(const u##BITS *new, const u##BITS *old, size_t count, \
                                            unsigned few, unsigned first, T *z, uint8_t *tokens)  \
    {                                                                                             \
        (void)new, (void)old, (void)count, (void)few, (void)first, (void)z, (void)tokens;         \
        return 0;                                                                                 \
    }                                                                                             \
    static INLINE void keep_wide_##BITS(const uint8_t *tokens, size_t count, uint8_t least,       \
                                        const T *z, T *values)                                    \
    {                                                                                             \
        (void)tokens, (void)count, (void)least, (void)z, (void)values;                            \
    }                                                                                             \
    static INLINE void spread_wide_##BITS(const uint8_t *tokens, size_t count, uint8_t least,     \
                                          const T *values, T *z)                                  \
    {                                                                                             \
        (void)tokens, (void)count, (void)least, (void)values, (void)z;                            \
    }
NOT_WIDE(uint8_t, 8)
NOT_WIDE(uint64_t, 64)
#if !WIDE
NOT_WIDE(uint16_t, 16)
NOT_WIDE(uint32_t, 32)
#endif

enum { DECODED, CUT_OFF, LEFT_OVER, TOO_LARGE, DIFFERENT };

/* `literals` are the differences of tokens 0 to 15; `lookup`, if any, has the token of each
 * difference below 1 << 16, 255 where that is no literal. Without one, literals are 0 to 15. */
#define CODER(T, BITS, WORD)                                                                      \
    static INLINE void tokens_##BITS(const u##BITS *new, const u##BITS *old, size_t count,            \
                                     const uint8_t *lookup, T *z, uint8_t *tokens)                \
    {                                                                                             \
        /* Below `few`, a difference is its own token, or the length that it has. */              \
        unsigned few = lookup ? 2 : LITERALS, first = lookup ? LITERALS : 0;                      \
        size_t done = 0;                                                                          \
        if (WIDE_##BITS)                                                                          \
            done = tokens_wide_##BITS(new, old, count, few, first, z, tokens);                    \
        difference_##BITS(new + done, old + done, count - done, (u##BITS *)z + done);             \
        if (BITS <= 32) {                                                                         \
            /* Vectorised: a float has the length and the second bit on top. Of words of more than\
             * 24 bits, without those that rounding could carry from. */                          \
            union {                                                                               \
                float values[BLOCK];                                                              \
                uint32_t bits[BLOCK];                                                             \
            } floats;                                                                             \
            for (size_t i = done; i < count; i++) {                                               \
                uint32_t word = (uint32_t)z[i];                                                   \
                floats.values[i] = (float)(int32_t)(word >> 24 ? word >> 8 : word);               \
            }                                                                                     \
            for (size_t i = done; i < count; i++) {                                               \
                uint32_t word = (uint32_t)z[i];                                                   \
                uint32_t token = (floats.bits[i] >> 22) - 2 * 127 + LITERALS;                     \
                token += BITS > 24 && word >> 24 ? 16 : 0;                                        \
                tokens[i] = (uint8_t)(word < few ? word + first : token);                         \
            }                                                                                     \
        } else                                                                                    \
            for (size_t i = done; i < count; i++)                                                 \
                tokens[i] = z[i] < few ? (uint8_t)(z[i] + first) : long_token(z[i]);              \
        if (lookup)                                                                               \
            for (size_t i = 0; i < count; i++) {                                                  \
                uint8_t token = z[i] > 0xffff ? 255 : lookup[z[i] & 0xffff];                      \
                tokens[i] = token < LITERALS ? token : tokens[i];                                 \
            }                                                                                     \
    }                                                                                             \
    static INLINE void keys_##BITS(const u##BITS *old, size_t count, unsigned shift, u8 *keys)    \
    {                                                                                             \
        for (size_t i = 0; i < count; i++)                                                        \
            keys[i] = (u8)(old[i] >> shift);                                                      \
    }                                                                                             \
    VECTORISED EXPORT void theta_histogram_##WORD(const u##BITS *new, const u##BITS *old,         \
                                                  size_t count, unsigned shift,                   \
                                                  const uint8_t *lookup, uint32_t *counts)        \
    {                                                                                             \
        enum { WIDTH = LITERALS + 2 * BITS };                                                     \
        T z[BLOCK];                                                                               \
        uint8_t tokens[BLOCK], keys[BLOCK];                                                       \
        uint16_t ats[BLOCK];                                                                      \
        /* Neighbours in tables of their own: an addition need not wait for the one before. */    \
        uint32_t *others = counts + 256 * WIDTH;                                                  \
        for (size_t start = 0; start < count; start += BLOCK) {                                   \
            size_t length = count - start < BLOCK ? count - start : BLOCK;                        \
            tokens_##BITS(new + start, old + start, length, lookup, z, tokens);                   \
            keys_##BITS(old + start, length, shift, keys);                                        \
            for (size_t i = 0; i < length; i++)                                                   \
                ats[i] = (uint16_t)(keys[i] * WIDTH + tokens[i]);                                 \
            size_t after = count - start > BLOCK ? start + BLOCK : start;                         \
            const next_block ahead = {(const u8 *)(new + after), (const u8 *)(old + after), WORD};\
            for (size_t i = 0; i + 1 < length; i += 2) {                                          \
                if (i % 16 == 0)                                                                  \
                    ask_for(&ahead, i);                                                           \
                counts[ats[i]]++;                                                                 \
                others[ats[i + 1]]++;                                                             \
            }                                                                                     \
            if (length & 1)                                                                       \
                counts[ats[length - 1]]++;                                                        \
        }                                                                                         \
        for (size_t i = 0; i < 256 * WIDTH; i++)                                                  \
            counts[i] += others[i];                                                               \
    }                                                                                             \
    /* Tokens and differences of words with raw bits, in a row; how many words these are. */      \
    static INLINE size_t keep_##BITS(const uint8_t *tokens, const T *z, size_t count,             \
                                     uint8_t *restrict kept, T *restrict values)                  \
    {                                                                                             \
        uint16_t places[BLOCK];                                                                   \
        if (WIDE_##BITS) {                                                                        \
            keep_wide_##BITS(tokens, count, LITERALS + 4, z, values);                             \
            return keep_tokens_wide(tokens, count, LITERALS + 4, kept);                           \
        }                                                                                         \
        size_t found = find_tokens(tokens, count, LITERALS + 4, places);                          \
        for (size_t k = 0; k < found; k++) {                                                      \
            kept[k] = tokens[places[k]];                                                          \
            values[k] = z[places[k]];                                                             \
        }                                                                                         \
        return found;                                                                             \
    }                                                                                             \
    /* The raw bits of words, and how many each has. */                                           \
    static INLINE void cut_raw_##BITS(const uint8_t *restrict tokens, size_t count,               \
                                      T *restrict values, uint8_t *restrict lengths)              \
    {                                                                                             \
        for (size_t k = 0; k < count; k++) {                                                      \
            unsigned raw = raw_bits(tokens[k]);                                                   \
            values[k] = (T)(values[k] & (T)(((T)1 << raw) - 1));                                  \
            lengths[k] = (uint8_t)raw;                                                            \
        }                                                                                         \
    }                                                                                             \
    static INLINE void write_raw_##BITS(const T *values, const uint8_t *lengths, size_t count,    \
                                        u8 *bits, uint64_t position, uint64_t end)                \
    {                                                                                             \
        bit_writer writer = begin_bits(bits, position, end);                                      \
        size_t k = 0;                                                                             \
        if (BITS <= 32) /* two together mostly have 56 bits at most */                            \
            for (; k + 1 < count; k += 2) {                                                       \
                unsigned both = (unsigned)lengths[k] + lengths[k + 1];                            \
                if (both > 56) {                                                                  \
                    write_bits(&writer, values[k], lengths[k]);                                   \
                    write_bits(&writer, values[k + 1], lengths[k + 1]);                           \
                } else                                                                            \
                    write_bits(&writer, values[k] | (uint64_t)values[k + 1] << lengths[k], both); \
            }                                                                                     \
        for (; k < count; k++) {                                                                  \
            unsigned low = lengths[k] < 32 ? lengths[k] : 32;                                     \
            write_bits(&writer, (uint32_t)values[k], low);                                        \
            if (BITS > 32)                                                                        \
                write_bits(&writer, (uint64_t)values[k] >> 32, lengths[k] - low);                 \
        }                                                                                         \
        end_bits(&writer);                                                                        \
    }                                                                                             \
    /* Backwards, from the end of `words`, whose room is `room`; `bit_count` raw bits, to `bits`, \
     * which is 16 bytes longer and ends in 17 zeros. The number of words, or SIZE_MAX where they \
     * may not fit. */                                                                            \
    VECTORISED EXPORT size_t theta_encode_##WORD(                                                 \
        const u##BITS *new, const u##BITS *old, size_t count, unsigned shift,                     \
        const uint8_t *contexts, const uint8_t *lookup, const uint32_t *ranges, size_t lanes,     \
        uint32_t *states, u16 *words, size_t room, u8 *bits, uint64_t bit_count)                       \
    {                                                                                             \
        T z[BLOCK];                                                                               \
        uint8_t tokens[BLOCK], keys[BLOCK];                                                       \
        uint8_t found[BLOCK], lengths[BLOCK], kept[BLOCK + 64];                                   \
        T values[BLOCK + 64];                                                                     \
        uint16_t ats[BLOCK];                                                                      \
        u16 *next = words + room;                                                                 \
        uint64_t inverses[MAX_CONTEXTS * TOKENS];                                                 \
        invert(contexts, ranges, inverses);                                                       \
        for (size_t j = 0; j < lanes; j++)                                                        \
            states[j] = LEAST;                                                                    \
        size_t start = count ? (count - 1) / BLOCK * BLOCK : 0, length = count - start;           \
        for (;; start -= BLOCK, length = BLOCK) {                                                 \
            tokens_##BITS(new + start, old + start, length, lookup, z, tokens);                   \
            keys_##BITS(old + start, length, shift, keys);                                        \
            to_contexts(contexts, keys, length, found);                                           \
            for (size_t i = 0; i < length; i++)                                                   \
                ats[i] = (uint16_t)(found[i] * TOKENS + tokens[i]);                               \
            size_t after = start ? start - BLOCK : 0;                                             \
            const next_block ahead = {(const u8 *)(new + after), (const u8 *)(old + after), WORD};\
            if (!encode_tokens(ranges, inverses, ats, length, lanes, states, words, &next, &ahead))\
                return SIZE_MAX;                                                                  \
            /* Where most words have raw bits, all of them, to do without places. */              \
            size_t count_raw = length;                                                            \
            T *raw = z;                                                                           \
            const uint8_t *raw_tokens = tokens;                                                   \
            if (!is_dense(tokens, length)) {                                                      \
                count_raw = keep_##BITS(tokens, z, length, kept, values);                         \
                raw = values, raw_tokens = kept;                                                  \
            }                                                                                     \
            cut_raw_##BITS(raw_tokens, count_raw, raw, lengths);                                  \
            uint64_t end = bit_count;                                                             \
            bit_count -= sum(lengths, count_raw);                                                 \
            if (bit_count > end)                                                                  \
                return SIZE_MAX;                                                                  \
            write_raw_##BITS(raw, lengths, count_raw, bits, bit_count, end);                      \
            if (start == 0)                                                                       \
                return bit_count ? SIZE_MAX : (size_t)(words + room - next);                      \
        }                                                                                         \
    }                                                                                             \
    /* The differences of tokens, of which most have raw bits, or of which few have some. */      \
    static INLINE int dense_##BITS(const uint8_t *tokens, size_t count, const u8 *bits,           \
                                   size_t bit_bytes, uint64_t *position, T *restrict z)           \
    {                                                                                             \
        uint8_t heads[BLOCK], lengths[BLOCK], largest = 0;                                        \
        for (size_t i = 0; i < count; i++) {                                                      \
            uint8_t token = tokens[i], rest = (uint8_t)(token - LITERALS);                        \
            heads[i] = token < LITERALS ? token : rest < 2 ? rest : (uint8_t)(2 | (token & 1));   \
            lengths[i] = token < LITERALS + 4 ? 0 : (uint8_t)((rest >> 1) - 1);                   \
            largest = token > largest ? token : largest;                                          \
        }                                                                                         \
        uint32_t needed = sum(lengths, count);                                                    \
        if (largest >= LITERALS + 2 * BITS)                                                       \
            return TOO_LARGE;                                                                     \
        if ((uint64_t)bit_bytes * 8 - *position < needed)                                         \
            return CUT_OFF;                                                                       \
        uint64_t at = *position;                                                                  \
        size_t i = 0;                                                                             \
        if ((at + needed) / 8 + 8 <= bit_bytes)                                                   \
            for (; i < count; at += lengths[i++]) {                                               \
                __builtin_prefetch(bits + (at >> 3) + AHEAD, 0, 2);                               \
                z[i] = (T)(*(const u64 *)(bits + (at >> 3)) >> (at & 7));                         \
            }                                                                                     \
        for (; i < count; at += lengths[i++])                                                     \
            z[i] = (T)read_bits(bits, bit_bytes, at, lengths[i]);                                 \
        for (i = 0; i < count; i++) {                                                             \
            unsigned length = lengths[i] % BITS;                                                  \
            z[i] = (T)((T)heads[i] << length | (z[i] & (T)(((T)1 << length) - 1)));               \
        }                                                                                         \
        *position = at;                                                                           \
        return DECODED;                                                                           \
    }                                                                                             \
    static INLINE int sparse_##BITS(const uint8_t *tokens, size_t count, const u8 *bits,          \
                                    size_t bit_bytes, uint64_t *position, T *restrict z)          \
    {                                                                                             \
        uint16_t places[BLOCK];                                                                   \
        uint8_t kept[BLOCK + 64];                                                                 \
        T values[BLOCK + 64];                                                                     \
        for (size_t i = 0; i < count; i++)                                                        \
            z[i] = tokens[i];                                                                     \
        if (WIDE_##BITS) {                                                                        \
            size_t long_ones = keep_tokens_wide(tokens, count, LITERALS, kept);                   \
            int flaw = dense_##BITS(kept, long_ones, bits, bit_bytes, position, values);          \
            if (!flaw)                                                                            \
                spread_wide_##BITS(tokens, count, LITERALS, values, z);                           \
            return flaw;                                                                          \
        }                                                                                         \
        size_t found = find_tokens(tokens, count, LITERALS, places);                              \
        for (size_t k = 0; k < found; k++) {                                                      \
            unsigned token = tokens[places[k]] - LITERALS, raw = raw_bits(tokens[places[k]]);     \
            if (token >= 2 * BITS)                                                                \
                return TOO_LARGE;                                                                 \
            if ((uint64_t)bit_bytes * 8 - *position < raw)                                        \
                return CUT_OFF;                                                                   \
            uint64_t value = token < 2 ? token : (uint64_t)(2 | (token & 1)) << raw;              \
            if (BITS > 32 && raw > 32) {                                                          \
                value |= read_bits(bits, bit_bytes, *position, 32);                               \
                value |= read_bits(bits, bit_bytes, *position + 32, raw - 32) << 32;              \
            } else if (raw)                                                                       \
                value |= read_bits(bits, bit_bytes, *position, raw);                              \
            *position += raw;                                                                     \
            z[places[k]] = (T)value;                                                              \
        }                                                                                         \
        return DECODED;                                                                           \
    }                                                                                             \
    /* To `out`, or, where that is NULL, compared with `expected`. */                             \
    VECTORISED EXPORT int theta_decode_##WORD(                                                    \
        const u##BITS *old, size_t count, unsigned shift, const uint8_t *contexts,                \
        const uint64_t *literals, const uint32_t *slots, size_t lanes, uint32_t *states,               \
        const u16 *words, size_t word_count, const u8 *bits, size_t bit_bytes, u##BITS *out,      \
        const u##BITS *expected)                                                                  \
    {                                                                                             \
        T z[BLOCK];                                                                               \
        uint8_t tokens[BLOCK], keys[BLOCK];                                                       \
        size_t used = 0;                                                                          \
        uint64_t position = 0;                                                                    \
        int identity = 1;                                                                         \
        for (int i = 0; i < LITERALS; i++)                                                        \
            identity &= literals[i] == (uint64_t)i;                                               \
        for (size_t start = 0; start < count; start += BLOCK) {                                   \
            size_t length = count - start < BLOCK ? count - start : BLOCK, done = 0;              \
            keys_##BITS(old + start, length, shift, tokens);                                      \
            to_contexts(contexts, tokens, length, keys);                                          \
            size_t after = count - start > BLOCK ? start + BLOCK : start;                         \
            const next_block ahead = {(const u8 *)((out ? out : expected) + after),               \
                                      (const u8 *)(old + after), WORD};                           \
            (void)ahead;                                                                          \
            DECODE_WIDE                                                                           \
            if (!decode_tokens(slots, keys + done, tokens + done, length - done, lanes, states,   \
                               words, word_count, &used))                                         \
                return CUT_OFF;                                                                   \
            int flaw = BITS <= 32 && is_dense(tokens, length)                                     \
                           ? dense_##BITS(tokens, length, bits, bit_bytes, &position, z)          \
                           : sparse_##BITS(tokens, length, bits, bit_bytes, &position, z);        \
            if (flaw)                                                                             \
                return flaw;                                                                      \
            if (!identity)                                                                        \
                for (size_t i = 0; i < length; i++)                                               \
                    if (tokens[i] < LITERALS)                                                     \
                        z[i] = (T)literals[tokens[i]];                                            \
            restore_##BITS((u##BITS *)z, old + start, length, (u##BITS *)z);                      \
            if (out)                                                                              \
                memcpy(out + start, z, length * WORD);                                            \
            else if (memcmp(expected + start, z, length * WORD))                                  \
                return DIFFERENT;                                                                 \
        }                                                                                         \
        for (size_t j = 0; j < lanes; j++)                                                        \
            if (states[j] != LEAST)                                                               \
                return LEFT_OVER;                                                                 \
        return used == word_count && (uint64_t)bit_bytes * 8 - position < 8 ? DECODED : LEFT_OVER;\
    }
#if WIDE
#define DECODE_WIDE                                                                               \
    if (lanes >= 16 && has_avx2)                                                                \
        done = (has_avx512 ? decode_tokens_wide : decode_tokens_avx2)(                            \
            slots, keys, tokens, length, lanes, states, words, word_count, &used, &ahead);
#else
#define DECODE_WIDE
#endif
CODER(uint8_t, 8, 1)
CODER(uint16_t, 16, 2)
CODER(uint32_t, 32, 4)
CODER(uint64_t, 64, 8)

/* ---- Merging ---- */

typedef float f32 __attribute__((aligned(4), may_alias));

static INLINE uint32_t unsigned_size(uint32_t word)
{
    return word & 0x7fffffff;
}

/* The least and the most high half of the magnitudes, but for 0, which is turned to the largest. */
VECTORISED static void find_range(const u32 *restrict words, size_t count, uint32_t *least,
                                  uint32_t *most)
{
    uint32_t low = UINT32_MAX, high = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t half = unsigned_size(words[i]) >> 16, other = half - 1;
        low = other < low ? other : low;
        high = half > high ? half : high;
    }
    *least = low + 1;
    *most = high;
}

VECTORISED static void flag_low_halves(const u32 *restrict words, size_t count, u8 *restrict flags)
{
    for (size_t i = 0; i < count; i++)
        flags[i] = (words[i] & 0xffff) != 0;
}

/* Writes those magnitudes whose low half is not 0, and returns how many there are now. Eight at a
 * time are passed over where none is, as of differences of bf16 numbers few are. */
static size_t find_exact(const u32 *words, size_t count, size_t found, size_t room, uint32_t *exact)
{
    u8 flags[BLOCK] = {0};
    flag_low_halves(words, count, flags);
    for (size_t start = 0; start < count && found <= room; start += 8) {
        uint64_t eight;
        memcpy(&eight, flags + start, sizeof eight);
        for (; eight; eight &= eight - 1) {
            if (found < room)
                exact[found] = unsigned_size(words[start + (size_t)__builtin_ctzll(eight) / 8]);
            found++;
        }
    }
    return found;
}

static INLINE void count_bins(const u32 *words, size_t count, uint32_t tables[4][1 << 15])
{
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (size_t t = 0; t < 4; t++)
            tables[t][unsigned_size(words[i + t]) >> 16]++;
    for (; i < count; i++)
        tables[0][unsigned_size(words[i]) >> 16]++;
}

/* Counts the high halves of magnitudes: writes those that occur, in ascending order, how often, and
 * their number; and writes the magnitudes whose low half is not 0. Returns the number of these, or
 * more than `room` where they may not fit. Neighbours often fall into one bin: in four tables, a count
 * does not wait for the one before. Of the tables, which do not fit the caches beside the words, only
 * the bins between the least and the most are cleared and looked at. */
EXPORT size_t theta_tally(const u32 *words, size_t count, size_t room, uint32_t tables[4][1 << 15],
                          uint32_t *exact, int64_t *keys, int64_t *counts, size_t *bins)
{
    size_t found = 0, used = 0;
    uint32_t least, most;
    find_range(words, count, &least, &most);
    for (int t = 0; t < 4; t++) {
        tables[t][0] = 0;
        memset(tables[t] + least, 0, (most - least + 1) * sizeof **tables);
    }
    for (size_t start = 0; start < count; start += BLOCK) {
        size_t stop = count - start < BLOCK ? count : start + BLOCK;
        count_bins(words + start, stop - start, tables);
        found = find_exact(words + start, stop - start, found, room, exact);
    }
    for (uint32_t bin = 0; bin <= most; bin = bin ? bin + 1 : least ? least : 1) {
        int64_t number = 0;
        for (int t = 0; t < 4; t++)
            number += tables[t][bin];
        keys[used] = (int64_t)bin, counts[used] = number;
        used += number > 0;
    }
    *bins = used;
    return found;
}

/* The sums of products of rows, by halving: the second half is added to the first, and so on; an odd
 * one out comes last. Products of float32 numbers are exact in float64. `sums` has room for half a
 * row, rounded up. */
VECTORISED static void add_products(const f32 *restrict left, const f32 *restrict right,
                                    size_t half, double *restrict sums)
{
    for (size_t i = 0; i < half; i++)
        sums[i] = (double)left[i] * right[i] + (double)left[i + half] * right[i + half];
}

VECTORISED static void add_half(double *restrict sums, const double *restrict others, size_t half)
{
    for (size_t i = 0; i < half; i++)
        sums[i] += others[i];
}

EXPORT void theta_row_dots(const f32 *left, const f32 *right, size_t rows, size_t width,
                           double *sums, double *out)
{
    for (size_t row = 0; row < rows; row++, left += width, right += width) {
        size_t half = width / 2, count = half + width % 2;
        add_products(left, right, half, sums);
        if (width % 2)
            sums[half] = (double)left[width - 1] * right[width - 1];
        for (; count > 1; count = half + count % 2) {
            half = count / 2;
            add_half(sums, sums + half, half);
            if (count % 2)
                sums[half] = sums[count - 1];
        }
        out[row] = width ? sums[0] : 0;
    }
}

enum { MOST = 16, RUN = 1024 };

/* Numbers of which a comparison holds, as a mask of bits: what a branch would choose. */
static INLINE float masked(float value, int holds)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits &= -(uint32_t)holds;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

VECTORISED static void trim(const f32 *restrict delta, size_t length, size_t ties, float magnitude,
                            float *restrict out)
{
    for (size_t j = 0; j < ties; j++)
        out[j] = delta[j] * masked(1.0f, !(__builtin_fabsf(delta[j]) < magnitude));
    for (size_t j = ties; j < length; j++)
        out[j] = delta[j] * masked(1.0f, __builtin_fabsf(delta[j]) > magnitude);
}

VECTORISED static void add_scaled(float *restrict sums, const float *restrict terms, float factor,
                                  size_t length)
{
    for (size_t j = 0; j < length; j++)
        sums[j] += terms[j] * factor;
}

VECTORISED static void scale(float *restrict out, const float *restrict terms, float factor,
                             size_t length)
{
    for (size_t j = 0; j < length; j++)
        out[j] = terms[j] * factor;
}

/* -1 or 1 for each sum; a NaN counts as positive, as it is not below zero. */
VECTORISED static void elect(const float *restrict sums, float *restrict signs, size_t length)
{
    for (size_t j = 0; j < length; j++)
        signs[j] = 1.0f - masked(2.0f, sums[j] < 0);
}

/* What has the elected sign, made positive; the rest, but for NaN, becomes 0. */
VECTORISED static void side_with(float *restrict terms, float *restrict votes,
                                 const float *restrict signs, size_t length)
{
    for (size_t j = 0; j < length; j++) {
        float value = terms[j] * signs[j];
        terms[j] = masked(value, !(value < 0));
        votes[j] = masked(1.0f, value > 0);
    }
}

VECTORISED static void divide(float *restrict sums, const float *restrict shares, size_t length)
{
    for (size_t j = 0; j < length; j++)
        sums[j] /= shares[j] + (1.0f - masked(1.0f, shares[j] > 0));
}

VECTORISED static void apply_signs(f32 *restrict out, const float *restrict sums,
                                   const float *restrict signs, size_t length)
{
    for (size_t j = 0; j < length; j++)
        out[j] = sums[j] * signs[j];
}

static void agree(float trimmed[MOST][RUN], size_t number, size_t length, const float *weights,
                  const float *electing, int normalize, f32 *out)
{
    float sums[RUN], shares[RUN], signs[RUN], votes[RUN];
    scale(sums, trimmed[0], electing[0], length);
    for (size_t i = 1; i < number; i++)
        add_scaled(sums, trimmed[i], electing[i], length);
    elect(sums, signs, length);
    for (size_t i = 0; i < number; i++) {
        side_with(trimmed[i], votes, signs, length);
        if (i) {
            add_scaled(sums, trimmed[i], weights[i], length);
            add_scaled(shares, votes, weights[i], length);
        } else {
            scale(sums, trimmed[i], weights[i], length);
            scale(shares, votes, weights[i], length);
        }
    }
    if (normalize)
        divide(sums, shares, length);
    apply_signs(out, sums, signs, length);
}

EXPORT int theta_agreeing_mean(const f32 *const *deltas, size_t number, size_t count,
                               const float *magnitudes, const int64_t *lasts, const float *weights,
                               const float *electing, int normalize, f32 *out)
{
    float trimmed[MOST][RUN];
    if (number < 1 || number > MOST)
        return 0;
    for (size_t start = 0; start < count; start += RUN) {
        size_t length = count - start < RUN ? count - start : RUN;
        for (size_t i = 0; i < number; i++) {
            int64_t left = lasts[i] - (int64_t)start + 1;
            size_t ties = left < 0 ? 0 : (uint64_t)left > length ? length : (size_t)left;
            trim(deltas[i] + start, length, ties, magnitudes[i], trimmed[i]);
        }
        agree(trimmed, number, length, weights, electing, normalize, out + start);
    }
    return 1;
}

static INLINE float widened(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

VECTORISED static void subtract(const u16 *restrict left, const u16 *restrict right, size_t count,
                                f32 *restrict out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = widened(left[i]) - widened(right[i]);
}

EXPORT void theta_bf16_difference(const u16 *left, const u16 *right, size_t count, f32 *out)
{
    subtract(left, right, count, out);
}

/* ---- Elements that one contributor changed alone, or with others ---- */

VECTORISED static void count_active(const f32 *restrict delta, size_t length, float threshold,
                                    float *restrict counts)
{
    for (size_t j = 0; j < length; j++)
        counts[j] += masked(1.0f, __builtin_fabsf(delta[j]) > threshold);
}

/* What is active, times `gain` more where it is alone. */
VECTORISED static void add_active(const f32 *restrict delta, size_t length, float threshold,
                                  float gain, const float *restrict counts, float *restrict sums)
{
    for (size_t j = 0; j < length; j++) {
        float kept = delta[j] * masked(1.0f, __builtin_fabsf(delta[j]) > threshold);
        sums[j] += kept * (1.0f + masked(gain, counts[j] == 1.0f));
    }
}

VECTORISED static void divide_by_counts(const float *restrict sums, const float *restrict counts,
                                        size_t length, f32 *restrict out)
{
    for (size_t j = 0; j < length; j++)
        out[j] = sums[j] / (counts[j] + masked(1.0f, counts[j] == 0));
}

VECTORISED static void tally_active(const f32 *restrict delta, size_t length, float threshold,
                                    const float *restrict counts, int64_t totals[2])
{
    uint32_t every = 0, alone = 0;
    for (size_t j = 0; j < length; j++) {
        uint32_t is_active = __builtin_fabsf(delta[j]) > threshold;
        every += is_active;
        alone += is_active & (counts[j] == 1.0f);
    }
    totals[0] += every;
    totals[1] += alone;
}

static void count_all(const f32 *const *deltas, size_t number, size_t start, size_t length,
                      float threshold, float *counts)
{
    memset(counts, 0, length * sizeof *counts);
    for (size_t i = 0; i < number; i++)
        count_active(deltas[i] + start, length, threshold, counts);
}

EXPORT void theta_active_mean(const f32 *const *deltas, size_t number, size_t count,
                              float threshold, const float *gains, f32 *out)
{
    float counts[RUN], sums[RUN];
    for (size_t start = 0; start < count; start += RUN) {
        size_t length = count - start < RUN ? count - start : RUN;
        count_all(deltas, number, start, length, threshold, counts);
        for (size_t j = 0; j < length; j++)
            sums[j] = -0.0f; /* to which the first is added as it is */
        for (size_t i = 0; i < number; i++)
            add_active(deltas[i] + start, length, threshold, gains[i], counts, sums);
        divide_by_counts(sums, counts, length, out + start);
    }
}

/* Adds the numbers of elements that each contributor changed, and that it changed alone. */
EXPORT void theta_active_counts(const f32 *const *deltas, size_t number, size_t count,
                                float threshold, int64_t totals[][2])
{
    float counts[RUN];
    for (size_t start = 0; start < count; start += RUN) {
        size_t length = count - start < RUN ? count - start : RUN;
        count_all(deltas, number, start, length, threshold, counts);
        for (size_t i = 0; i < number; i++)
            tally_active(deltas[i] + start, length, threshold, counts, totals[i]);
    }
}

/* ---- Masks ---- */

/* Numbers times 1 where they are above the lower limit (and equal it, with `low_ties`), less 1 where
 * they are above the higher one. */
static INLINE void keep(const f32 *restrict delta, size_t length, float high, int high_ties,
                        float low, int low_ties, f32 *restrict out)
{
    for (size_t j = 0; j < length; j++) {
        float size = __builtin_fabsf(delta[j]);
        int above = high_ties ? !(size < high) : size > high;
        int reached = low_ties ? !(size < low) : size > low;
        out[j] = delta[j] * (masked(1.0f, reached) - masked(1.0f, above));
    }
}

#define KEEP(NAME, HIGH_TIES, LOW_TIES)                                                           \
    VECTORISED static void NAME(const f32 *delta, size_t length, float high, float low, f32 *out) \
    {                                                                                             \
        keep(delta, length, high, HIGH_TIES, low, LOW_TIES, out);                                 \
    }
KEEP(keep_neither, 0, 0)
KEEP(keep_high, 1, 0)
KEEP(keep_low, 0, 1)
KEEP(keep_both, 1, 1)

EXPORT void theta_between(const f32 *delta, size_t count, float high, int64_t high_last, float low,
                          int64_t low_last, f32 *out)
{
    size_t ties[2];
    int64_t lasts[2] = {high_last, low_last};
    for (int i = 0; i < 2; i++)
        ties[i] = lasts[i] < 0 ? 0 : (uint64_t)lasts[i] >= count ? count : (size_t)lasts[i] + 1;
    size_t both = ties[0] < ties[1] ? ties[0] : ties[1];
    size_t either = ties[0] < ties[1] ? ties[1] : ties[0];
    keep_both(delta, both, high, low, out);
    (ties[0] > ties[1] ? keep_high : keep_low)(delta + both, either - both, high, low, out + both);
    keep_neither(delta + either, count - either, high, low, out + either);
}

/* Numbers in [0, 1) from the hash of their index; see randomness.py. */
VECTORISED static void mix(uint32_t first, size_t count, uint32_t key, uint32_t second,
                           f32 *restrict out)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = (first + (uint32_t)i) ^ key;
        bits = (bits ^ (bits >> 17)) * 0xED5AD4BBu ^ second;
        bits = (bits ^ (bits >> 11)) * 0xAC4C1B51u;
        bits = (bits ^ (bits >> 15)) * 0x31848BABu;
        bits ^= bits >> 14;
        out[i] = (float)(int32_t)(bits >> 8) * 0x1p-24f;
    }
}

EXPORT void theta_uniform(uint32_t first, size_t count, uint32_t key, uint32_t second, f32 *out)
{
    mix(first, count, key, second, out);
}

/* Numbers times 1 where the random number is below the probability, else times 0; with `divides`,
 * over the probability, or over 1 where that is 0. */
VECTORISED static void thin(const f32 *restrict delta, const f32 *restrict random,
                            const f32 *restrict probability, size_t count, f32 *restrict out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = delta[i] * masked(1.0f, random[i] < probability[i]);
}

VECTORISED static void thin_and_divide(const f32 *restrict delta, const f32 *restrict random,
                                       const f32 *restrict probability, size_t count,
                                       f32 *restrict out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = delta[i] * masked(1.0f, random[i] < probability[i]) /
                 (probability[i] + masked(1.0f, probability[i] == 0));
}

EXPORT void theta_thin(const f32 *delta, const f32 *random, const f32 *probability, size_t count,
                       int divides, f32 *out)
{
    (divides ? thin_and_divide : thin)(delta, random, probability, count, out);
}

/* The sign moved below the magnitude, and turned: the larger word is the number of larger magnitude,
 * of two opposite ones the positive. */
static INLINE uint32_t by_magnitude(uint32_t bits)
{
    return bits << 1 | (~bits >> 31);
}

VECTORISED static void keep_largest(const u32 *restrict bits, uint32_t *restrict largest,
                                    size_t length)
{
    for (size_t j = 0; j < length; j++) {
        uint32_t word = by_magnitude(bits[j]);
        largest[j] = word > largest[j] ? word : largest[j];
    }
}

EXPORT void theta_largest(const u32 *const *deltas, size_t number, size_t count, u32 *out)
{
    uint32_t largest[RUN];
    for (size_t start = 0; start < count; start += RUN) {
        size_t length = count - start < RUN ? count - start : RUN;
        memset(largest, 0, sizeof largest);
        for (size_t i = 0; i < number; i++)
            keep_largest(deltas[i] + start, largest, length);
        for (size_t j = 0; j < length; j++)
            out[start + j] = largest[j] >> 1 | (~largest[j] << 31);
    }
}

enum { DIGIT = 11, DIGITS = 3 };

/* Every NaN is the largest, as torch sorts them. */
static INLINE uint32_t magnitude(uint32_t bits)
{
    bits &= 0x7fffffff;
    return bits > 0x7f800000 ? 0x7fc00000 : bits;
}

VECTORISED static uint32_t largest_magnitude(const u32 *numbers, size_t width)
{
    uint32_t found = 0;
    for (size_t i = 0; i < width; i++)
        found = magnitude(numbers[i]) > found ? magnitude(numbers[i]) : found;
    return found;
}

static INLINE size_t bin_of(uint64_t key, uint32_t least, unsigned at)
{
    uint32_t below = (uint32_t)(key >> 32);
    return (below < least ? below : least) >> at & ((1 << DIGIT) - 1);
}

/* Sorts a row by how far magnitudes are below the largest, in `digits` digits from bit `shift` on,
 * where all from `least` on count as equal. The place is below each key: no two keys are equal.
 * Returns where they are, `from` or `to`. */
static INLINE uint64_t *sorted(const u32 *numbers, size_t width, uint32_t largest, uint32_t least,
                               unsigned shift, unsigned digits, uint64_t *from, uint64_t *to)
{
    uint32_t counts[DIGITS][1 << DIGIT] = {{0}};
    for (size_t i = 0; i < width; i++) {
        from[i] = (uint64_t)(largest - magnitude(numbers[i])) << 32 | i;
        for (unsigned d = 0; d < digits; d++)
            counts[d][bin_of(from[i], least, shift + DIGIT * d)]++;
    }
    for (unsigned d = 0; d < digits; d++) {
        unsigned at = shift + DIGIT * d;
        uint32_t *count = counts[d], total = 0;
        if (count[bin_of(from[0], least, at)] == width)
            continue;
        for (size_t bin = 0; bin < 1 << DIGIT; bin++) {
            uint32_t here = count[bin];
            count[bin] = total;
            total += here;
        }
        for (size_t i = 0; i < width; i++)
            to[count[bin_of(from[i], least, at)]++] = from[i];
        uint64_t *swap = from;
        from = to, to = swap;
    }
    return from;
}

/* Sorts numbers of which few are out of place; returns 0 where that takes more than `left` steps. */
static int insert(uint64_t *keys, size_t width, size_t left)
{
    for (size_t i = 1; i < width; i++) {
        uint64_t key = keys[i];
        size_t at = i;
        for (; at && keys[at - 1] > key && left; at--, left--)
            keys[at] = keys[at - 1];
        keys[at] = key;
        if (!left)
            return 0;
    }
    return 1;
}

enum { NEAR = 2047, CODES = 2 * NEAR + 2 };

/* Codes of magnitudes, the larger the magnitude the smaller: twice how far the high half is below
 * `top`, and 1 more without a low half. What is `far` or more below shares a code, but 0 has its own.
 * Numbers with an odd code are equal; returns how many have an even one. */
VECTORISED static size_t find_codes(const u32 *restrict numbers, size_t width, uint32_t top,
                                    uint32_t far, u16 *restrict codes)
{
    uint32_t even = 0;
    for (size_t i = 0; i < width; i++) {
        uint32_t size = magnitude(numbers[i]), below = top - (size >> 16);
        uint32_t is_near = below < far, is_whole = is_near ? !(size & 0xffff) : !size;
        codes[i] = (u16)(2 * (is_near ? below : far) + is_whole);
        even += !is_whole;
    }
    return even;
}

/* Turns counts into the sums of those before, four at a time; all of them are below 1 << 16. */
static void add_up(uint16_t *counts, size_t number)
{
    uint64_t before = 0;
    for (size_t at = 0; at < number; at += 4) {
        uint64_t four;
        memcpy(&four, counts + at, sizeof four);
        four += four << 16;
        four += four << 32;
        uint64_t starts = (four << 16) + before * 0x0001000100010001u;
        before += four >> 48;
        memcpy(counts + at, &starts, sizeof starts);
    }
}

/* As `theta_spread`, for one row, by counting: few of its numbers have a low half, as differences of
 * bf16 numbers; these are sorted. Returns 0 where they are too many for that. */
static int spread_counted(const u32 *numbers, size_t width, uint32_t largest, const f32 *values,
                          uint64_t *keys, u16 *codes, f32 *out)
{
    uint16_t counts[CODES];
    uint32_t least, most;
    find_range(numbers, width, &least, &most);
    uint32_t top = largest >> 16, far = top < least ? 0 : top - least + 1, even = 0;
    far = far < NEAR ? far : NEAR;
    size_t bad = find_codes(numbers, width, top, far, codes), found = 0;
    if (width >> 16 || bad * bad > 16 * width)
        return 0;
    memset(counts, 0, (2 * far + 2 + 3) / 4 * 4 * sizeof *counts);
    for (size_t i = 0; i < width; i++)
        counts[codes[i]]++;
    add_up(counts, 2 * far + 2);
    for (size_t i = 0; i < width; i++) {
        even = !(codes[i] & 1);
        out[i] = values[counts[codes[i]]];
        counts[codes[i]] += !even;
        keys[found] = i;
        found += even;
    }
    for (size_t n = 0; n < found; n++)
        keys[n] |= (uint64_t)(largest - magnitude(numbers[keys[n]])) << 32;
    insert(keys, found, SIZE_MAX);
    for (size_t n = 0; n < found; n++) {
        uint32_t place = (uint32_t)keys[n];
        out[place] = values[counts[codes[place]]++];
    }
    return 1;
}

/* The first of `values` for the largest number of a row, and so on; of equals the first comes first.
 * Counted where that is possible, as sorting takes twice the time. Else sorted are the upper bits of
 * 16 octaves below the largest; then what is out of place. Where that is too much, all bits are
 * sorted. `scratch` has two rows. */
static void spread_row(const u32 *numbers, size_t width, const f32 *values, uint64_t *scratch,
                       f32 *out)
{
    uint32_t largest = largest_magnitude(numbers, width);
    uint64_t *others = scratch + width, *keys;
    if (spread_counted(numbers, width, largest, values, scratch, (u16 *)others, out))
        return;
    keys = sorted(numbers, width, largest, (1 << 27) - 1, 5, 2, scratch, others);
    if (!insert(keys, width, 4 * width))
        keys = sorted(numbers, width, largest, UINT32_MAX, 0, DIGITS, scratch, others);
    for (size_t i = 0; i < width; i++)
        out[(uint32_t)keys[i]] = values[i];
}

EXPORT void theta_spread(const u32 *numbers, size_t rows, size_t width, const f32 *values,
                         uint64_t *scratch, f32 *out)
{
    for (size_t row = 0; width && row < rows; row++, numbers += width, out += width)
        spread_row(numbers, width, values, scratch, out);
}

/* `thin` by probabilities that belong to ranks in a row. `keys` are two for every RANDOM_RUN random
 * numbers, of which that of the first element is number `first`. `scratch` has three rows. */
enum { RANDOM_RUN = 1 << 20 };

EXPORT void theta_thin_ranked(const f32 *delta, size_t rows, size_t width, const f32 *values,
                              size_t first, const uint32_t *keys, int divides, uint64_t *scratch,
                              f32 *out)
{
    f32 *probability = (f32 *)(scratch + 2 * width), *random = probability + width;
    for (size_t row = 0; width && row < rows; row++, delta += width, out += width) {
        spread_row((const u32 *)delta, width, values, scratch, probability);
        for (size_t i = 0, length; i < width; i += length, first += length) {
            const uint32_t *pair = keys + 2 * (first / RANDOM_RUN);
            length = RANDOM_RUN - first % RANDOM_RUN;
            length = length < width - i ? length : width - i;
            mix((uint32_t)(first % RANDOM_RUN), length, pair[0], pair[1], random + i);
        }
        theta_thin(delta, random, probability, width, divides, out);
    }
}

EXPORT int theta_abi(void)
{
    return 7;
}
