BEGIN TRANSACTION;
CREATE TABLE conditions (
	digest VARCHAR(12) NOT NULL, 
	device VARCHAR(200) NOT NULL, 
	origin VARCHAR(20) NOT NULL, 
	fields TEXT NOT NULL, 
	reference_ms FLOAT, 
	reference_samples INTEGER, 
	PRIMARY KEY (digest)
);
INSERT INTO "conditions" VALUES('e2441ba40d78','phone','measured','{"clocks": "governed", "cores": "big", "device": "phone", "fingerprint": "f", "governor": "none", "load_s": 0.0, "mode": "steady", "model": "m", "optimisation": "all", "origin": "measured", "precision": "float32", "provider": "p", "runtime": "r", "runtime_hash": "h", "runtime_version": "1", "statistic": "samples", "threads": 1}',0.5,3);
CREATE TABLE measurement (
	id INTEGER NOT NULL, 
	conditions VARCHAR(12) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	subject TEXT NOT NULL, 
	series INTEGER NOT NULL, 
	purpose VARCHAR(20) NOT NULL, 
	complete BOOLEAN NOT NULL, 
	given_up TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (conditions, subject, series), 
	FOREIGN KEY(conditions) REFERENCES conditions (digest)
);
INSERT INTO "measurement" VALUES(1,'e2441ba40d78','operator','stem_k3_s2@32x32x3->16',0,'profile',1,NULL);
INSERT INTO "measurement" VALUES(2,'e2441ba40d78','operator','pool@8x8x16->10',0,'profile',1,NULL);
INSERT INTO "measurement" VALUES(3,'e2441ba40d78','operator','relu@1',0,'profile',0,NULL);
CREATE TABLE meta (
	name VARCHAR(40) NOT NULL, 
	value TEXT, 
	PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('version','1');
CREATE TABLE rejection (
	id INTEGER NOT NULL, 
	conditions VARCHAR(12) NOT NULL, 
	subject TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	at VARCHAR(40) NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(conditions) REFERENCES conditions (digest)
);
INSERT INTO "rejection" VALUES(1,'e2441ba40d78','relu@1','the device was hot','2026-11-29T23:05:46+00:00');
CREATE TABLE round (
	id INTEGER NOT NULL, 
	measurement INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	samples_ms TEXT NOT NULL, 
	sentinel_ms TEXT NOT NULL, 
	preempted INTEGER NOT NULL, 
	at VARCHAR(40) NOT NULL, 
	circumstances TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (measurement, number), 
	FOREIGN KEY(measurement) REFERENCES measurement (id)
);
INSERT INTO "round" VALUES(1,1,0,'[1.0, 1.1]','[0.5, 0.5]',0,'2026-03-02T10:00:00+00:00','{}');
INSERT INTO "round" VALUES(2,1,1,'[1.2]','[0.5]',0,'2026-03-02T10:00:03+00:00','{}');
INSERT INTO "round" VALUES(3,2,0,'[2.0, 2.1]','[]',0,'2026-03-02T10:00:06+00:00','{}');
INSERT INTO "round" VALUES(4,3,0,'[9.0]','[]',0,'2026-03-02T10:00:07+00:00','{}');
CREATE INDEX ix_conditions_device ON conditions (device);
COMMIT;
