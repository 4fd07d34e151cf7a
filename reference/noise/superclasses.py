"""The superclasses of CIFAR-100 (Krizhevsky 2009): 20 groups of five classes, which are numbered alphabetically."""

CIFAR100 = (
    (4, 30, 55, 72, 95),  # aquatic mammals: beaver, dolphin, otter, seal, whale
    (1, 32, 67, 73, 91),  # fish: aquarium fish, flatfish, ray, shark, trout
    (54, 62, 70, 82, 92),  # flowers: orchid, poppy, rose, sunflower, tulip
    (9, 10, 16, 28, 61),  # food containers: bottle, bowl, can, cup, plate
    (0, 51, 53, 57, 83),  # fruit and vegetables: apple, mushroom, orange, pear, sweet pepper
    (22, 39, 40, 86, 87),  # household electrical devices: clock, keyboard, lamp, telephone, television
    (5, 20, 25, 84, 94),  # household furniture: bed, chair, couch, table, wardrobe
    (6, 7, 14, 18, 24),  # insects: bee, beetle, butterfly, caterpillar, cockroach
    (3, 42, 43, 88, 97),  # large carnivores: bear, leopard, lion, tiger, wolf
    (12, 17, 37, 68, 76),  # large man-made outdoor things: bridge, castle, house, road, skyscraper
    (23, 33, 49, 60, 71),  # large natural outdoor scenes: cloud, forest, mountain, plain, sea
    (15, 19, 21, 31, 38),  # large omnivores and herbivores: camel, cattle, chimpanzee, elephant, kangaroo
    (34, 63, 64, 66, 75),  # medium-sized mammals: fox, porcupine, possum, raccoon, skunk
    (26, 45, 77, 79, 99),  # non-insect invertebrates: crab, lobster, snail, spider, worm
    (2, 11, 35, 46, 98),  # people: baby, boy, girl, man, woman
    (27, 29, 44, 78, 93),  # reptiles: crocodile, dinosaur, lizard, snake, turtle
    (36, 50, 65, 74, 80),  # small mammals: hamster, mouse, rabbit, shrew, squirrel
    (47, 52, 56, 59, 96),  # trees: maple, oak, palm, pine, willow
    (8, 13, 48, 58, 90),  # vehicles 1: bicycle, bus, motorcycle, pickup truck, train
    (41, 69, 81, 85, 89),  # vehicles 2: lawn mower, rocket, streetcar, tank, tractor
)
