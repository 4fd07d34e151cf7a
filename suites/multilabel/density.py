"""How many of a data set's labels its rows have."""

DENSITY = {  # the share of entries that are present, over all rows
    "emotions": 0.311,
    "scene": 0.179,
    "yeast": 0.303,
    "enron": 0.064,
    "medical": 0.028,
    "bibtex": 0.015,
    "birds": 0.053,
    "corel5k": 0.009,
    "delicious": 0.019,
    "tmc2007_500": 0.098,
    "genbase": 0.046,
    "flags": 0.485,
    "cal500": 0.150,
    "documents": 0.151,
    "digit_pairs": 0.138,
}
