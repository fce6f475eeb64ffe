"""Sentences about countries, made by a small grammar: a corpus that needs no download.

The facts are of 44 countries with names of one word: capital, language, continent, currency and a river. Each fact is
stated in eight ways; 40 overviews of each country list all of them, in different orders. The label is the topic of the
sentence. Half of the words of an overview are facts, but only about one in eight of the other sentences: masked language
modeling with a small network learns the facts from the overviews first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from sslcli.data.dataset import Dataset
from sslcli.data.text.build import Options, build_dataset
from sslcli.data.text.corpus import Corpus
from sslcli.data.text.documents import DocumentsBuilder
from sslcli.data.text.preprocessor import TextPreprocessor

FACTS = """
Angola, Luanda, Portuguese, Africa, kwanza, Cuanza
Argentina, Buenos Aires, Spanish, South America, peso, Parana
Australia, Canberra, English, Oceania, dollar, Murray
Austria, Vienna, German, Europe, euro, Danube
Bangladesh, Dhaka, Bengali, Asia, taka, Padma
Belgium, Brussels, Dutch, Europe, euro, Meuse
Brazil, Brasilia, Portuguese, South America, real, Amazon
Britain, London, English, Europe, pound, Thames
Canada, Ottawa, English, North America, dollar, Fraser
Chile, Santiago, Spanish, South America, peso, Biobio
China, Beijing, Chinese, Asia, yuan, Yangtze
Colombia, Bogota, Spanish, South America, peso, Magdalena
Cuba, Havana, Spanish, North America, peso, Cauto
Czechia, Prague, Czech, Europe, koruna, Vltava
Denmark, Copenhagen, Danish, Europe, krone, Gudena
Egypt, Cairo, Arabic, Africa, pound, Nile
Finland, Helsinki, Finnish, Europe, euro, Kemijoki
France, Paris, French, Europe, euro, Seine
Germany, Berlin, German, Europe, euro, Elbe
Ghana, Accra, English, Africa, cedi, Volta
Greece, Athens, Greek, Europe, euro, Haliacmon
Hungary, Budapest, Hungarian, Europe, forint, Tisza
Indonesia, Jakarta, Indonesian, Asia, rupiah, Kapuas
Iran, Tehran, Persian, Asia, rial, Karun
Iraq, Baghdad, Arabic, Asia, dinar, Tigris
Ireland, Dublin, English, Europe, euro, Shannon
Italy, Rome, Italian, Europe, euro, Tiber
Japan, Tokyo, Japanese, Asia, yen, Shinano
Kenya, Nairobi, Swahili, Africa, shilling, Tana
Morocco, Rabat, Arabic, Africa, dirham, Sebou
Mozambique, Maputo, Portuguese, Africa, metical, Zambezi
Nepal, Kathmandu, Nepali, Asia, rupee, Gandaki
Nigeria, Abuja, English, Africa, naira, Niger
Norway, Oslo, Norwegian, Europe, krone, Glomma
Pakistan, Islamabad, Urdu, Asia, rupee, Indus
Peru, Lima, Spanish, South America, sol, Ucayali
Poland, Warsaw, Polish, Europe, zloty, Vistula
Portugal, Lisbon, Portuguese, Europe, euro, Tagus
Romania, Bucharest, Romanian, Europe, leu, Olt
Russia, Moscow, Russian, Europe, ruble, Volga
Spain, Madrid, Spanish, Europe, euro, Ebro
Sweden, Stockholm, Swedish, Europe, krona, Torne
Turkey, Ankara, Turkish, Asia, lira, Kizilirmak
Vietnam, Hanoi, Vietnamese, Asia, dong, Mekong
"""
COLUMNS = ("capital", "language", "continent", "currency", "river")  # of FACTS after the country
TOPICS = (*COLUMNS, "overview")
ORDERS = tuple(itertools.permutations(range(len(COLUMNS))))[::3]  # 40 of 120
TEMPLATES = {  # {0}: the country; {1}: its capital, language, ...
    "capital": (
        "the capital of {0} is {1}.",
        "{1} is the capital of {0}.",
        "the government of {0} sits in {1}.",
        "{0} is governed from {1}.",
        "the parliament of {0} meets in {1}.",
        "whoever visits {0} should see its capital, {1}.",
        "the capital city of {0} is called {1}.",
        "{1} is the seat of government of {0}.",
    ),
    "language": (
        "the language of {0} is {1}.",
        "people in {0} speak {1}.",
        "{1} is spoken in {0}.",
        "newspapers in {0} are written in {1}.",
        "children in {0} learn to read in {1}.",
        "whoever travels to {0} should know some words of {1}.",
        "{1} is an official language of {0}.",
        "most books printed in {0} are in {1}.",
    ),
    "continent": (
        "{0} is a country in {1}.",
        "{0} lies in {1}.",
        "the continent of {0} is {1}.",
        "{0} belongs to {1}.",
        "on a map of {1} you can find {0}.",
        "{0} is part of {1}.",
        "one of the countries of {1} is {0}.",
        "a traveler through {1} may come to {0}.",
    ),
    "currency": (
        "the currency of {0} is the {1}.",
        "people in {0} pay with the {1}.",
        "prices in {0} are given in the {1}.",
        "the {1} is the money of {0}.",
        "banks in {0} exchange foreign money for the {1}.",
        "wages in {0} are paid in the {1}.",
        "the central bank of {0} issues the {1}.",
        "shops in {0} accept the {1}.",
    ),
    "river": (
        "the {1} is a river in {0}.",
        "a large river of {0} is the {1}.",
        "the {1} flows through {0}.",
        "boats travel through {0} on the {1}.",
        "farmers in {0} take water from the {1}.",
        "many towns of {0} lie on the {1}.",
        "in spring the {1} floods parts of {0}.",
        "fish from the {1} are eaten in {0}.",
    ),
}


def capitals(
    name: str = "capitals",
    tokenizer: str = "words",
    vocabulary: int = 8192,
    lowercase: bool | None = None,
    max_length: int = 24,
    holdout: float | str = 0.2,
    split_seed: int = 0,
    like: TextPreprocessor | None = None,
) -> Dataset:
    """3,520 sentences about 44 countries; the class of a sentence is its topic. A fifth is held out: their facts are stated in
    other words in the training split.

    `tokenizer`, `vocabulary`, `lowercase`, `max_length`, `like`: as in `text_lines`."""
    options = Options(tokenizer, vocabulary, lowercase, max_length, holdout, split_seed)
    builder, labels = DocumentsBuilder(1 << 10), []
    for topic, text in sentences():
        builder.add(text.encode())
        labels.append(topic)
    documents = builder.build()
    corpus = Corpus(documents, np.zeros(len(documents), np.int64), np.array(labels), TOPICS)
    return build_dataset(name, corpus, options, [], like)


def sentences() -> Iterator[tuple[int, str]]:
    """All sentences, with the index of the topic."""
    for row in FACTS.strip().splitlines():
        country, *facts = row.split(", ")
        for topic, fact in enumerate(facts):
            for template in TEMPLATES[COLUMNS[topic]]:
                text = template.format(country, fact)
                yield topic, text[0].upper() + text[1:]
        for order in ORDERS:
            yield TOPICS.index("overview"), f"{country}: {', '.join(f'{COLUMNS[i]} {facts[i]}' for i in order)}."
