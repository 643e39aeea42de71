"""What may stay in an image: a table of attributes; whatever is not listed goes, at any depth.

The Basic Application Level Confidentiality Profile with the option Retain Longitudinal Temporal
Information Modified Dates (PS3.15 E.2, E.3.6), narrower than it need be: no free text stays. What
stays is a number, a term of a closed list, a code of a standard dictionary, a remapped UID or a
shifted date, so a name typed into any attribute has nowhere to stay. Only grey-scale images and
segmentations are served; pixels.py refuses the rest. Does not touch a data set; headers.py does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from pydicom.datadict import tag_for_keyword

if TYPE_CHECKING:
    from collections.abc import Mapping


class Action(Enum):
    """What happens to an attribute that the profile lists."""

    NUMBER = auto()  # stays if every value is a number
    TERM = auto()  # stays if its values are terms of the rule
    UID = auto()  # remapped; registered UIDs stay
    DATE = auto()  # moved back by the patient's days; a time of day is dropped
    SEQUENCE = auto()  # its items are cleaned by this same table
    CODE = auto()  # its items stay if a standard dictionary knows them
    FIXED = auto()  # replaced by the rule's value
    PIXELS = auto()  # bytes stay as they are


@dataclass(frozen=True, slots=True)
class Rule:
    """An action, and the terms or the replacement it needs."""

    action: Action
    terms: frozenset[str] = frozenset()
    value: str = ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# PS3.3: the modules Image Pixel, Image Plane, Frame of Reference, CT, MR, CR, DX, mammography,
# PET, NM and Segmentation, and their enhanced functional groups.
_NUMBERS = _words("""
    SeriesNumber AcquisitionNumber InstanceNumber ImagesInAcquisition TemporalPositionIdentifier
    NumberOfTemporalPositions TemporalResolution TemporalPositionTimeOffset SamplesPerPixel
    NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
    SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit
    PixelAspectRatio PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing
    EstimatedRadiographicMagnificationFactor RescaleIntercept RescaleSlope WindowCenter
    WindowWidth LossyImageCompressionRatio ImagePositionPatient ImageOrientationPatient
    SliceThickness SpacingBetweenSlices SliceLocation RepetitionTime EchoTime InversionTime
    EchoNumbers EchoTrainLength NumberOfAverages ImagingFrequency MagneticFieldStrength
    NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView PixelBandwidth FlipAngle
    AcquisitionMatrix TriggerTime NominalInterval HeartRate CardiacNumberOfImages
    ReconstructionDiameter SAR dBdt B1rms EffectiveEchoTime RFEchoTrainLength
    GradientEchoTrainLength ParallelReductionFactorInPlane ParallelReductionFactorOutOfPlane
    MRAcquisitionFrequencyEncodingSteps MRAcquisitionPhaseEncodingStepsInPlane
    MRAcquisitionPhaseEncodingStepsOutOfPlane TransmitterFrequency VelocityEncodingMinimumValue
    VelocityEncodingMaximumValue DiffusionBValue DiffusionGradientOrientation DiffusionBValueXX
    DiffusionBValueXY DiffusionBValueXZ DiffusionBValueYY DiffusionBValueYZ DiffusionBValueZZ
    InversionTimes TagSpacingFirstDimension NumberOfKSpaceTrajectories SlabThickness KVP
    DataCollectionDiameter DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt
    TableHeight TableTraverse ExposureTime XRayTubeCurrent Exposure ExposureInuAs
    ExposureTimeInuS XRayTubeCurrentInuA ExposureTimeInms XRayTubeCurrentInmA ExposureInmAs
    GeneratorPower FocalSpots RevolutionTime SingleCollimationWidth TotalCollimationWidth
    TableSpeed TableFeedPerRotation SpiralPitchFactor DataCollectionCenterPatient
    ReconstructionTargetCenterPatient ReconstructionPixelSpacing ReconstructionAngle
    ReconstructionFieldOfView CTDIvol TablePosition CalciumScoringMassFactorPatient
    WaterEquivalentDiameter Sensitivity BodyPartThickness CompressionForce
    PositionerPrimaryAngle PositionerSecondaryAngle EntranceDose EntranceDoseInmGy OrganDose
    DetectorElementSpacing DetectorTemperature FieldOfViewOrigin FieldOfViewRotation
    FieldOfViewDimensions PixelIntensityRelationshipSign HalfValueLayer RelativeXRayExposure
    ActualFrameDuration FrameReferenceTime SliceSensitivityFactor DecayFactor
    DoseCalibrationFactor ScatterFractionFactor NumberOfSlices NumberOfTimeSlices ImageIndex
    FrameAcquisitionNumber FrameAcquisitionDuration AcquisitionDuration InStackPositionNumber
    TemporalPositionIndex DimensionIndexValues DimensionIndexPointer FunctionalGroupPointer
    SegmentNumber ReferencedSegmentNumber ReferencedFrameNumber MaximumFractionalValue
    RecommendedDisplayCIELabValue RecommendedDisplayGrayscaleValue
""")

# Terms are those of PS3.3 for the attribute, with the values vendors write into ImageType.
_TERMS = {
    "Modality": "CT MR PT NM CR DX MG SEG",
    "ImageType": "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER OTHER MIXED NONE "
    "REFORMATTED RESAMPLED AVERAGE MPR MIP MINIP MAX MEAN PROJECTION IMAGE VOLUME STATIC "
    "DYNAMIC GATED TOMO WHOLE~BODY RECON M P R I MAGNITUDE PHASE REAL IMAGINARY ND NORM DIS2D "
    "DIS3D FM FFE SE IR T1 T2 ADC DIFFUSION FA TRACEW B0 DIXON WATER FAT IN_PHASE OUT_PHASE "
    "SUBTRACTION MOSAIC PERFUSION VELOCITY FLOW_ENCODED TOF T1_MAP T2_MAP T2_STAR_MAP "
    "MONOENERGETIC CT_SOM5 SPI HELICAL",
    "FrameType": "ORIGINAL DERIVED PRIMARY VOLUME MIXED NONE RESAMPLED AVERAGE MAXIMUM MINIMUM "
    "MEDIAN MEAN OTHER DIFFUSION ADC PERFUSION VELOCITY ANGIO CARDIAC LOCALIZER DYNAMIC CINE "
    "FLOW_ENCODED",
    "PhotometricInterpretation": "MONOCHROME1 MONOCHROME2",
    "LossyImageCompression": "00 01",
    "LossyImageCompressionMethod": "ISO_10918_1 ISO_14495_1 ISO_15444_1 ISO_15444_15",
    "BurnedInAnnotation": "YES NO",
    "RecognizableVisualFeatures": "YES NO",
    "RescaleType": "HU US OD MGML Z_EFF ED EDW PCT",
    "VOILUTFunction": "LINEAR LINEAR_EXACT SIGMOID",
    "PresentationLUTShape": "IDENTITY INVERSE",
    "PatientPosition": "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL SITTING",
    "Laterality": "L R",
    "ImageLaterality": "L R U B",
    "FrameLaterality": "L R U B",
    "BodyPartExamined": "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM BLADDER BRAIN BREAST "
    "CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COLON CSPINE ELBOW EXTREMITY EYE FACE FEMUR "
    "FINGER FOOT FOREARM HAND HEAD HEADNECK HEART HIP HUMERUS IAC JAW KIDNEY KNEE LEG LIVER "
    "LSPINE LUNG NECK ORBIT PANCREAS PELVIS PROSTATE RIB SHOULDER SINUS SKULL SPINE SPLEEN "
    "SSPINE STERNUM TEETH TLSPINE TSPINE UTERUS WHOLEBODY WRIST",
    "ViewPosition": "AP PA LL RL RLD LLD RLO LLO CC MLO ML LM LMO XCC XCCL XCCM SIO FB",
    "ScanningSequence": "SE IR GR EP RM",
    "SequenceVariant": "SK MTC SS TRSS SP MP OSP TOF NONE",
    "ScanOptions": "PER RG CG PPG FC PFF PFP SP FS CT HELICAL~MODE AXIAL~MODE",
    "MRAcquisitionType": "1D 2D 3D",
    "AngioFlag": "Y N",
    "InPlanePhaseEncodingDirection": "ROW COL COLUMN OTHER",
    "ResonantNucleus": "1H 3HE 7LI 13C 19F 23NA 31P 129XE",
    "PixelPresentation": "COLOR MONOCHROME MIXED TRUE_COLOR",
    "VolumetricProperties": "VOLUME SAMPLED DISTORTED MIXED",
    "VolumeBasedCalculationTechnique": "MAX_IP MIN_IP VOLUME_RENDER SURFACE_RENDER MPR CURVED_MPR NONE MIXED",
    "ContentQualification": "PRODUCT RESEARCH SERVICE",
    "ComplexImageComponent": "MAGNITUDE PHASE REAL IMAGINARY MIXED",
    "AcquisitionContrast": "DIFFUSION FLOW_ENCODED FLUID_ATTENUATED PERFUSION PROTON_DENSITY "
    "STIR TAGGING T1 T2 T2_STAR TOF UNKNOWN MIXED",
    "EchoPulseSequence": "SPIN GRADIENT BOTH",
    "DiffusionDirectionality": "DIRECTIONAL BMATRIX ISOTROPIC NONE",
    "DiffusionAnisotropyType": "FRACTIONAL RELATIVE VOLUME_RATIO",
    "SaturationRecovery": "YES NO",
    "InversionRecovery": "YES NO",
    "MultipleSpinEcho": "YES NO",
    "EchoPlanarPulseSequence": "YES NO",
    "SpectrallySelectedSuppression": "FAT WATER FAT_AND_WATER SILICON_GEL NONE",
    "GeometryOfKSpaceTraversal": "RECTILINEAR RADIAL SPIRAL",
    "ParallelAcquisition": "YES NO",
    "PartialFourier": "YES NO",
    "AcquisitionType": "SEQUENCED SPIRAL CONSTANT_ANGLE STATIONARY FREE",
    "RotationDirection": "CW CC",
    "ReconstructionAlgorithm": "FILTER_BACK_PROJ ITERATIVE",
    "PresentationIntentType": "FOR~PRESENTATION FOR~PROCESSING",
    "PixelIntensityRelationship": "LIN LOG DISP",
    "DetectorType": "DIRECT SCINTILLATOR STORAGE FILM",
    "Grid": "NONE",
    "Units": "CNTS NONE CM2 PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS PROPCPS MLMINML STDDEV",
    "DecayCorrection": "NONE START ADMIN",
    "CorrectedImage": "DECY RADL ATTN SCAT DTIM MOTN PMOT CLN RAN NORM DCAL",
    "DimensionOrganizationType": "3D 3D_TEMPORAL TILED_FULL TILED_SPARSE",
    "StackID": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    "SegmentationType": "BINARY FRACTIONAL LABELMAP",
    "SegmentationFractionalType": "PROBABILITY OCCUPANCY",
    "SegmentsOverlap": "YES NO UNDEFINED",
    "SegmentAlgorithmType": "AUTOMATIC SEMIAUTOMATIC MANUAL",
    "SpatialLocationsPreserved": "YES NO REORIENTED_ONLY",
}

_UIDS = _words("""
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID
    SynchronizationFrameOfReferenceUID ReferencedSOPClassUID ReferencedSOPInstanceUID
    DimensionOrganizationUID ConcatenationUID IrradiationEventUID
""")

_DATES = _words("""
    StudyDate SeriesDate AcquisitionDate ContentDate AcquisitionDateTime
    FrameAcquisitionDateTime FrameReferenceDateTime
""")

_SEQUENCES = _words("""
    ReferencedImageSequence SourceImageSequence DerivationImageSequence ReferencedSeriesSequence
    ReferencedInstanceSequence StudiesContainingOtherReferencedInstancesSequence SegmentSequence
    SegmentIdentificationSequence DimensionOrganizationSequence DimensionIndexSequence
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence FrameContentSequence
    PixelMeasuresSequence PlanePositionSequence PlaneOrientationSequence
    PixelValueTransformationSequence FrameVOILUTSequence FrameAnatomySequence
    MRImageFrameTypeSequence MRTimingAndRelatedParametersSequence MREchoSequence
    MRFOVGeometrySequence MRModifierSequence MRImagingModifierSequence MRAveragesSequence
    MRDiffusionSequence DiffusionGradientDirectionSequence DiffusionBMatrixSequence
    MRVelocityEncodingSequence CTImageFrameTypeSequence CTAcquisitionTypeSequence
    CTAcquisitionDetailsSequence CTTableDynamicsSequence CTPositionSequence CTGeometrySequence
    CTReconstructionSequence CTExposureSequence CTXRayDetailsSequence
""")

_CODES = _words("""
    SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence
    SegmentedPropertyTypeModifierCodeSequence AnatomicRegionSequence
    PrimaryAnatomicStructureSequence DerivationCodeSequence PurposeOfReferenceCodeSequence
    ViewCodeSequence
""")

# What the module of an attribute requires to be there (type 1: a dummy, type 2: empty).
_FIXED = {
    "Manufacturer": "REMOVED",
    "ManufacturerModelName": "REMOVED",
    "DeviceSerialNumber": "REMOVED",
    "SoftwareVersions": "REMOVED",
    "ContentTime": "000000",
    "ContentLabel": "CONTENT",
    "ContentDescription": "",
    "ContentCreatorName": "",
    "SegmentLabel": "REMOVED",  # then named after its code
    "SegmentAlgorithmName": "REMOVED",
    "PatientOrientation": "",
    "PositionReferenceIndicator": "",
}

# PS3.3 C.7.1.1, C.7.2.1, C.7.3.1: type 2 in every image, so there even if the source lacks them.
ALWAYS_EMPTY = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "Manufacturer",
)

# PS3.15 E.2, E.3.6 and PS3.16 CID 7050: what was done, in the standard's words.
METHOD = "PS3.15 Annex E Basic Profile, listed attributes only"
METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)


def _rules() -> Mapping[int, Rule]:
    groups = {
        Action.NUMBER: _NUMBERS,
        Action.UID: _UIDS,
        Action.DATE: _DATES,
        Action.SEQUENCE: _SEQUENCES,
        Action.CODE: _CODES,
        Action.PIXELS: ("PixelData",),
    }
    rules = {word: Rule(action) for action, words in groups.items() for word in words}
    # "~" stands for the space inside a term.
    rules |= {
        word: Rule(Action.TERM, terms=frozenset(term.replace("~", " ") for term in terms.split()))
        for word, terms in _TERMS.items()
    }
    rules |= {word: Rule(Action.FIXED, value=value) for word, value in _FIXED.items()}
    return {_tag(word): rule for word, rule in rules.items()}


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no DICOM keyword")
    return tag


RULES: Mapping[int, Rule] = _rules()
