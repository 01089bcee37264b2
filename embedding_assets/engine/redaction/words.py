"""The words in which numbers and addresses are said."""


def _words(text: str) -> list[str]:
    return text.split()


UNITS = {
    word: str(value)
    for value, words in enumerate(_words("zero/oh one two three four five six seven eight nine"))
    for word in words.split("/")
}
TEENS = {
    word: str(value)
    for value, word in enumerate(
        _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"),
        10,
    )
}
TENS = {
    word: value
    for value, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
TIMES = {"double": 2, "triple": 3}

BETWEEN = frozenset(_words("dash hyphen dot space uh um er then area code"))
"""Said between digits, and no end of the number."""

AMOUNTS = frozenset(
    _words(
        "dollars dollar euros euro pounds percent million billion thousand minutes hours days weeks"
        " months years people units users seats"
    )
)
"""After a number that counts something."""

TOP_LEVEL_DOMAINS = _words(
    "com org net io co edu gov ai dev app us uk de fr nl eu ch at be es it se no dk fi pl ca au in"
    " info biz me tv"
)

NO_NAMES = frozenset(
    _words(
        "look looked looking works work working worked is are was were be been being it that this"
        " here there me us you them him her meet met meeting available down up out back live living"
        " stay stayed hosted found find start started sold bought listed site website page arrive"
        " arrived not only also just even still now posted published visit go going"
    )
)
"""Before "at", and nobody's name."""

JOINTS = {"dot": ".", "period": ".", "underscore": "_", "dash": "-", "hyphen": "-", "plus": "+"}
"""Said between the parts of an address."""
