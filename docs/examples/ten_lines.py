from unmix import Fista, SparseCoding, SparseWorld, TopKSAE, dictionary_mcc, mcc, replace

world = SparseWorld(latents=64, width=32, active=3)  # a world whose truth is known
train, test = world.sample(4096, rng=0), world.sample(2048, rng=1)
sae = TopKSAE(width=64, k=3, steps=2000).fit(train.x)  # atoms and an amortised encoder
coding = SparseCoding(width=64, penalty=0.1, passes=30).fit(train.x)

print("SAE               ", mcc(sae.encode(test.x), test.z))
print("SAE + exact codes ", mcc(replace(sae, encoder=Fista(penalty=0.02)).encode(test.x), test.z))
print("sparse coding     ", mcc(replace(coding, encoder=Fista(penalty=0.02)).encode(test.x), test.z))
print("dictionaries      ", dictionary_mcc(sae.atoms, world.atoms), "|", dictionary_mcc(coding.atoms, world.atoms))
